"""Tunes a network's dropout while it trains: a schedule of hyperparameters from one run.

python examples/selftuning.py [--epochs 120]

A network learns scikit-learn's digits from 600 images; its three dropout rates go down the
validation loss by its gradient. The schedule is drawn to out/selftuning.png.
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
from torch.utils import data

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
sets = [data.TensorDataset(x[i : i + 600], y[i : i + 600]) for i in (0, 600)]
train, valid = (data.DataLoader(one, batch_size=100, shuffle=True) for one in sets)
first = [nn.Dropout(), nn.Linear(64, 200), nn.ReLU()]
model = nn.Sequential(*first, nn.Dropout(), nn.Linear(200, 200), nn.ReLU(), nn.Dropout())
model.append(nn.Linear(200, 10))
arguments = (model, SPACE, train_loss, valid_loss, train, valid)
training = HyperTraining(*arguments, response="structured", seed=0)
tuned = training.fit(epochs=epochs, progress=True)
constants = [(rate, dict.fromkeys(SPACE, rate)) for rate in (0.0, 0.5)]
results = {f"dropout {p}": training.train(all_p, epochs * len(train)) for p, all_p in constants}
results |= {"self-tuned": tuned, "its schedule replayed": training.replay(tuned)}
for name, one in results.items():
    test_loss = valid_loss(one.model.eval(), (x[1200:], y[1200:])).item()
    print(f"{name:22} validation loss {one.true_loss:.3f}, test loss {test_loss:.3f}")
axes = (figure := Figure()).subplots(subplot_kw={"xlabel": "epoch", "ylabel": "dropout rate"})
axes.plot(tuned.steps / len(train), list(zip(*tuned.schedule.values(), strict=True)))
axes.legend(list(SPACE))
Path("out").mkdir(exist_ok=True)
figure.savefig("out/selftuning.png")
