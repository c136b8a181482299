"""What is written is run: README's Python blocks, and every example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest


ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
EXAMPLES = {  # the arguments that make it short, and what it prints untuned and then tuned
    "quickstart.py": (["--trials", "8"], r"RMSE (\d+\.\d+)"),
    "earlier_studies.py": ([], r"(?:without|studies) +\S+ \S+ (\d+\.\d+)"),
    "hypertraining.py": (["--steps", "600"], r"test loss (\d+\.\d+)"),
    "told_study.py": (["--trials", "3"], r"test loss (\d+\.\d+)"),
    "selftuning.py": (["--epochs", "60"], r"(?:0.0|tuned) .*test loss (\d+\.\d+)"),
}


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme_block_runs(block: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), namespace)
    study = namespace.get("study")
    assert study is None or isinstance(study, optuna.Study)


def test_readme_opens_with_the_quickstart() -> None:
    """The objective of the first block is the one that examples/quickstart.py tunes."""
    quickstart = (ROOT / "examples" / "quickstart.py").read_text("utf-8")
    suggestions = re.findall(r"trial\.suggest_\w+\(.*\)", BLOCKS[0])
    assert len(suggestions) >= 6
    assert all(suggestion in quickstart for suggestion in suggestions)


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_tunes(name: str, tmp_path: Path) -> None:
    if name not in ("quickstart.py", "earlier_studies.py"):
        pytest.importorskip("torch", reason="pip install optuna-hypernet[torch]")
    arguments, printed = EXAMPLES[name]
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    untuned, tuned = map(float, re.findall(printed, run.stdout))
    assert tuned < untuned


def test_readme_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    paths = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    assert paths
    assert all((ROOT / path).exists() for path in paths)
