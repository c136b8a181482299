"""What all tests share: one thread, a quiet Optuna, repeatable Hypothesis."""

from __future__ import annotations

import importlib.util
import os


# Before numpy is imported: small matrix products are slower on several threads, not faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from collections.abc import Iterator

import optuna
import pytest
from hypothesis import HealthCheck
from hypothesis import settings


# Door 1 needs no torch, and is tested without it, too; these files are about the other doors.
needs_torch = [
    "test_batches.py",
    "test_figures.py",
    "test_hypertraining.py",
    "test_prediction.py",
    "test_responses.py",
    "test_selftuning.py",
    "test_structured.py",
    "test_training_study.py",
]
collect_ignore = [] if importlib.util.find_spec("torch") else needs_torch

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    """No "Trial 0 finished" lines; warnings still come through. Restored afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def optuna_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Optuna's log records, which it does not pass to the root logger by default."""
    optuna.logging.enable_propagation()
    yield caplog
    optuna.logging.disable_propagation()
