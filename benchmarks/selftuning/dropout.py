"""Dropout rates of a small network on MNIST, the problem that takes seconds.

1,000 images to learn from, 1,000 to validate and 5,000 for the test; 784-200-200-10 with dropout
on the input and after both hidden layers, in batches of 100.
"""

from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.hypertraining import data
from benchmarks.selftuning.problem import RATE
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import train_loss
from benchmarks.selftuning.problem import valid_loss


INPUT, FIRST, LAST = RATES = ("0.p", "3.p", "6.p")
NAMES = {INPUT: "input", FIRST: "first hidden", LAST: "last hidden"}
BATCH, EPOCHS = 100, 120
START = 0.05


def problem(
    split: data.Split, seed: int, hidden: int = 200, tuned: Sequence[str] = RATES
) -> Problem:
    """Of any images as rows; rates that are not tuned stay 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Dropout(0.0),
            nn.Linear(split.train[0].shape[1], hidden),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(hidden, 10),
        )
    return Problem(
        title="dropout rates of 784-200-200-10 on 1,000 + 1,000 images of MNIST",
        seed=seed,
        epochs=EPOCHS,
        model=model,
        space=dict.fromkeys(tuned, RATE),
        names=[NAMES[name] for name in tuned],
        start=dict.fromkeys(tuned, START),
        grid={name: [name] for name in tuned},
        train_loss=train_loss,
        valid_loss=valid_loss,
        train=data.batches(split.train, BATCH),
        valid=data.batches(split.valid, BATCH),
        test=[split.test],
    )


def mnist(seed: int, tuned: Sequence[str] = RATES) -> Problem:
    """Other images of MNIST's training images for every seed; the first 5,000 of its test."""
    split = data.mnist(1000, 1000, seed)
    x, y = split.test
    return problem(split._replace(test=(x[:5000], y[:5000])), seed, tuned=tuned)
