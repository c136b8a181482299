"""Tunes a network's dropout while it trains: a schedule of hyperparameters from one run.

python examples/selftuning.py [--epochs 120]

Digits of scikit-learn, 600 of them to learn from. The schedule is drawn to out/selftuning.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from optuna_hypernet import HyperTraining


SPACE = dict.fromkeys(["0.p", "3.p", "6.p"], FloatDistribution(0.0, 0.9))


def train_loss(model: nn.Module, batch: Any, hp: Any) -> torch.Tensor:
    return cross_entropy(model(batch[0]), batch[1], reduction="none")


def valid_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return cross_entropy(model(batch[0]), batch[1])


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=120)
epochs = parser.parse_args().epochs
torch.manual_seed(0)
x, y = map(torch.tensor, load_digits(return_X_y=True))
order = torch.randperm(len(x))
x, y = x[order].float() / 16, y[order]
train = list(zip(x[:600].split(100), y[:600].split(100), strict=True))
valid = list(zip(x[600:1200].split(100), y[600:1200].split(100), strict=True))
hidden = [nn.ReLU(), nn.Dropout(), nn.Linear(200, 200), nn.ReLU(), nn.Dropout()]
model = nn.Sequential(nn.Dropout(), nn.Linear(64, 200), *hidden, nn.Linear(200, 10))
rest = (train_loss, valid_loss, train, valid)
training = HyperTraining(model, SPACE, *rest, response="structured", seed=0)
tuned = training.fit(epochs=epochs, progress=True)
results = {p: training.train(dict.fromkeys(SPACE, p), epochs * len(train)) for p in (0.0, 0.5)}
results |= {"self-tuned": tuned, "its schedule replayed": training.replay(tuned)}
for name, one in results.items():
    test_loss = valid_loss(one.model.eval(), (x[1200:], y[1200:])).item()
    print(f"{name!s:22} validation loss {one.true_loss:.3f}, test loss {test_loss:.3f}")
figure = Figure()
axes = figure.subplots(subplot_kw={"xlabel": "epoch", "ylabel": "dropout rate"})
for rates in tuned.schedule.values():
    axes.plot(tuned.steps / len(train), rates)
axes.legend(SPACE)
Path("out").mkdir(exist_ok=True)
figure.savefig("out/selftuning.png")
