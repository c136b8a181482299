# Everything runs on a machine that has Python (3.10 or newer) and make: each target makes the
# virtual environment it needs. PYTHON picks the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

# A file of tests shares what its tests have learnt, so it is one process's; a test has one thread.
pytest = -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

help:
	@echo "make quickstart    tune a scikit-learn model on real data, in about a minute"
	@echo "make test          run the tests"
	@echo "make test-oldest   run those that need no torch with the oldest Optuna, numpy, scipy"
	@echo "make check         ruff, ruff format, mypy --strict"
	@echo "make clean         remove the virtual environments and caches"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q -c constraints.txt -e ".[benchmarks,examples,test,check,torch]"
	touch $@

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q -c constraints-oldest.txt -e ".[benchmarks,examples,test]"
	touch $@

# Without torch, which is large and which it does not need.
.venv-quickstart/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-quickstart
	.venv-quickstart/bin/python -m pip install -q -c constraints.txt -e ".[examples]"
	touch $@

quickstart: .venv-quickstart/installed
	.venv-quickstart/bin/python examples/quickstart.py

test: .venv/installed
	.venv/bin/python $(pytest)

test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python $(pytest)

check: .venv/installed
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

clean:
	rm -rf .venv .venv-oldest .venv-quickstart .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help quickstart test test-oldest check clean
