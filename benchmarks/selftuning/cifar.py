"""Fifteen hyperparameters of a convolutional network on CIFAR-10.

Dropout on the input, after all five convolutions (of channels) and both hidden layers; noise in
scale, hue, saturation, contrast and brightness; length and number of Cutout's holes. Ranges and
starts are those of the paper's code, and so is the network, AlexNet, but for its width: a quarter
of the channels, and 256 units in hidden layers. 5,000 of the training images to learn from, so
that it over-fits within minutes, and 5,000 to validate; 5,000 of the test.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from torch import Tensor
from torch import nn

from benchmarks import images
from benchmarks.selftuning.problem import RATE
from benchmarks.selftuning.problem import Batch
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import among
from benchmarks.selftuning.problem import best_device
from benchmarks.selftuning.problem import train_loss
from benchmarks.selftuning.problem import valid_loss


EPOCHS, BATCH, RATE_OF_ADAM = 40, 128, 1e-3  # a run takes three minutes of a core
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's colours
LUMA = (0.299, 0.587, 0.114)
CHROMA = ((0.596, -0.274, -0.322), (0.211, -0.523, 0.312))  # I and Q of YIQ
HOLES = 4

CONVOLUTIONS = [f"dropout{number}.p" for number in range(1, 6)]
DROPOUT = ["input.p", *CONVOLUTIONS, "dropout6.p", "dropout7.p"]
LAST = DROPOUT[-1]
JITTER = {
    "scale": FloatDistribution(0.0, 0.3),
    "hue": FloatDistribution(0.0, 0.5),
    "saturation": FloatDistribution(0.0, 1.0),
    "contrast": FloatDistribution(0.0, 1.0),
    "brightness": FloatDistribution(0.0, 1.0),
}
CUTOUT = {"length": IntDistribution(0, 24), "holes": IntDistribution(0, HOLES)}
SPACE = {**dict.fromkeys(DROPOUT, RATE), **JITTER, **CUTOUT}
START = {**dict.fromkeys([*DROPOUT, *JITTER], 0.05), "length": 4, "holes": 1}
GROUPS = {"dropout": DROPOUT, "jitter": list(JITTER), "Cutout": list(CUTOUT)}


class Standardise(nn.Module):
    """Images of [0, 1] with mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = (x.new_tensor(each).view(3, 1, 1) for each in (MEAN, DEVIATION))
        return (x - mean) / deviation


def alexnet(width: int, hidden: int) -> nn.Sequential:
    """Five convolutions, the first with stride 2, and three linear layers."""
    layers: dict[str, nn.Module] = {"standardise": Standardise(), "input": nn.Dropout(0.0)}
    channels = [3, width, 3 * width, 6 * width, 4 * width, 4 * width]
    for i in range(1, 6):
        stride = 2 if i == 1 else 1
        layers[f"conv{i}"] = nn.Conv2d(channels[i - 1], channels[i], 3, stride, padding=1)
        layers[f"relu{i}"] = nn.ReLU()
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        layers[f"dropout{i}"] = nn.Dropout2d(0.0)
    layers["flatten"] = nn.Flatten()
    for i, size in ((6, 16 * width), (7, hidden)):
        layers[f"linear{i}"] = nn.Linear(size, hidden)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"dropout{i}"] = nn.Dropout(0.0)
    layers["linear8"] = nn.Linear(hidden, 10)
    return nn.Sequential(OrderedDict(layers))


def augment(batch: Batch, hp: Mapping[str, Tensor], generator: torch.Generator) -> Batch:
    """Every example as its own hyperparameters say; what is not tuned is not done."""
    x, y = batch
    none = x.new_zeros(len(x))
    draw = partial(torch.rand, len(x), generator=generator, device=x.device)
    by = {name: hp.get(name, none) for name in (*JITTER, *CUTOUT)}
    x = coloured(x, {name: by[name] * (2 * draw() - 1) for name in JITTER if name != "scale"})
    scale = torch.lerp(1 / (1 + by["scale"]), 1 + by["scale"], draw())
    centres = 32 * torch.rand(2, len(x), HOLES, generator=generator, device=x.device)
    kept = outside(centres, by["length"], by["holes"])
    mean = x.new_tensor(MEAN).view(3, 1, 1)
    return mean + (scale[:, None, None] * kept)[:, None] * (x - mean), y


def coloured(x: Tensor, by: Mapping[str, Tensor]) -> Tensor:
    """Images ``(B, 3, 32, 32)`` of [0, 1] with other colours, as ``by (B,)`` each says.

    Brightness scales all, contrast the distance from an image's mean grey, saturation that from
    a pixel's own grey, and hue turns the plane of chroma, by shares of a full turn.
    """
    luma, chroma = x.new_tensor(LUMA), x.new_tensor(CHROMA)  # (3,), (2, 3)
    bright, contrast, saturation = (
        1 + by[name] for name in ("brightness", "contrast", "saturation")
    )
    angle = 2 * math.pi * by["hue"]
    cos, sin = angle.cos() * saturation, angle.sin() * saturation
    turns = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # (B, 2, 2)
    grey = x.new_ones(3, 1) @ luma[None]  # what turns and saturation leave
    from_chroma = torch.linalg.inv(torch.cat([luma[None], chroma]))[:, 1:]  # (3, 2)
    matrix = (bright * contrast).view(-1, 1, 1) * (grey + from_chroma @ turns @ chroma)
    shift = (1 - contrast) * bright * (x.mean((2, 3)) @ luma)  # towards the mean grey
    mapped = matrix @ x.flatten(2) + shift.view(-1, 1, 1)
    return mapped.view_as(x).clamp(0, 1)


def outside(centres: Tensor, length: Tensor, holes: Tensor) -> Tensor:
    """Cutout (DeVries & Taylor 2017): where no square hole is, ``(B, 32, 32)``.

    Args:
        centres: ``(2, B, HOLES)`` in pixels.
        length: ``(B,)`` of a side.
        holes: ``(B,)`` how many there are.
    """
    pixels = torch.arange(32, device=centres.device) + 0.5
    near = (pixels - centres[..., None]).abs() < length.view(-1, 1, 1) / 2  # (2, B, HOLES, 32)
    there = torch.arange(HOLES, device=centres.device) < holes[:, None]  # (B, HOLES)
    rows, columns = near & there[..., None]
    return ~(rows[..., None] & columns[..., None, :]).any(1)


def batches(x: np.ndarray, y: np.ndarray) -> list[Batch]:
    """Batches of images ``(n, 32, 32, 3)`` of 0 to 255, in their order."""
    inputs = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32) / 255).contiguous()
    return list(zip(inputs.split(BATCH), torch.from_numpy(y).split(BATCH), strict=True))


def problem(
    parts: Sequence[Sequence[Batch]],
    seed: int,
    tuned: Sequence[str] = tuple(SPACE),
    width: int = 16,
    hidden: int = 256,
    epochs: int = EPOCHS,
) -> Problem:
    """Of training, validation and test batches; what is not tuned is left out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = alexnet(width, hidden)
    train, valid, test = parts
    counts = " + ".join(f"{sum(len(y) for _, y in part):,}" for part in (train, valid))
    options: dict[str, Any] = {"optimizer": partial(torch.optim.Adam, lr=RATE_OF_ADAM)}
    if not set(tuned) <= set(DROPOUT):
        options["augment"] = augment
    return Problem(
        title=f"{len(tuned)} hyperparameters of a convolutional network on {counts} images of "
        "CIFAR-10",
        seed=seed,
        epochs=epochs,
        model=model,
        space={name: SPACE[name] for name in tuned},
        names=[name.removesuffix(".p") for name in tuned],
        start={name: START[name] for name in tuned},
        grid=among(GROUPS, tuned),
        train_loss=train_loss,
        valid_loss=valid_loss,
        train=train,
        valid=valid,
        test=test,
        options=options,
    )


def subset(seed: int, tuned: Sequence[str]) -> Problem:
    """Other training images for every seed, the first 5,000 of the test."""
    return problem(split(seed, 5_000, 5_000, 5_000), seed, tuned)


def full(seed: int, tuned: Sequence[str]) -> Problem:
    """All images, a fifth of the training images to validate; the network of the paper."""
    parts = split(seed, 40_000, 10_000, 10_000)
    made = problem(parts, seed, tuned, width=64, hidden=4096, epochs=100)
    return replace(made, options={**made.options, "device": best_device()})


def split(seed: int, n_train: int, n_valid: int, n_test: int) -> list[list[Batch]]:
    """Three parts that share nothing."""
    x, y, x_test, y_test = images.cifar10()
    order = np.random.default_rng(seed).permutation(len(x))
    train, valid = order[:n_train], order[n_train : n_train + n_valid]
    parts = [(x[train], y[train]), (x[valid], y[valid]), (x_test[:n_test], y_test[:n_test])]
    return [batches(*part) for part in parts]
