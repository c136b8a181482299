"""The benchmark of studies that are told the model: its accounts and its command."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest


pytest.importorskip("torch", reason="pip install torch")
pytest.importorskip("matplotlib", reason="pip install matplotlib")

from benchmarks import MissingError
from benchmarks import training_study
from benchmarks.training_study import BATCH
from benchmarks.training_study import Data
from benchmarks.training_study import Run


@pytest.fixture(scope="module")
def small() -> Data:
    """500 digits of 7 x 7 pixels to learn from, and as many to validate on."""
    try:
        return training_study.load("mnist", 500, 500, 4)
    except MissingError as error:
        pytest.skip(str(error))


def test_split_is_disjoint_and_the_same_for_everybody(small: Data) -> None:
    again = training_study.load("mnist", 500, 500, 4)
    seen = {tuple(row.tolist()) for row in small.train.x}

    assert small.pixels == 49
    assert (small.train.y == again.train.y).all()
    assert not [row for row in small.valid[0] if tuple(row.tolist()) in seen]


def test_training_learns_and_is_repeatable(small: Data) -> None:
    params = {name: kind.low for name, kind in training_study.SPACE.items()}
    untrained, trained, again = (training_study.train(small, params, n, 0) for n in (0, 60, 60))

    assert trained == again
    assert trained[0] < 0.7 * untrained[0]


def test_first_trial_that_is_as_low() -> None:
    valid = np.array([3.0, 1.0, 2.0])
    run = Run(valid, valid, valid, valid)

    assert [run.first(loss) for loss in (3.0, 1.5, 1.0, 0.5)] == [0, 1, 1, None]


def test_command_counts_every_gradient_step_and_writes_its_figure(
    small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    training_study.add_arguments(parser)
    trials = ["--sets", "mnist", "--trials", "1", "--peer-trials", "2", "--steps", "8"]
    trials += ["--fit", "30"]
    sizes = ["--train", "500", "--valid", "500", "--pool", "4"]
    out = tmp_path / "figure.svg"
    places = ["--kept", str(tmp_path / "kept"), "--out", str(out)]
    arguments = parser.parse_args([*trials, *sizes, *places])

    assert training_study.main(arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    names = training_study.TOLD + training_study.PEERS
    studies = [line for line in lines if line and line[0] in names]
    steps = {line[0]: int(line[4]) for line in studies}
    # Two λ for each of 30 train steps, a valid step after every second of two thirds of them, 513
    # predictions over 500 and one when it was made; and the one trial.
    hyper = 60 + 10 + (513 + 1) * 500 / BATCH / 3
    evaluated = 51 * 500 / BATCH / 3
    assert hyper < steps.pop("warm") <= hyper + 1 + evaluated
    assert hyper + 8 < steps.pop("told") <= hyper + 9 + evaluated
    assert steps == {"hypernet": 16, "tpe": 16, "gp": 16}
    assert len(studies) == 10, "every one on its own, and as a mean"
    assert out.read_text(encoding="utf-8").startswith("<svg")
