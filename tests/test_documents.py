"""What is written is run: README's Python blocks, every example, and the figures' commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest


ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    plot = tmp_path / "history.png"
    command = [sys.executable, str(example), "--trials", "8", "--out", str(plot)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    untuned, tuned = map(float, re.findall(r"RMSE (\d+\.\d+)", run.stdout))
    assert tuned < untuned
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_readme_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    paths = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    assert paths
    assert all((ROOT / path).exists() for path in paths)
