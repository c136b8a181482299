"""Tunes a network's regularisation while its best response is learnt: one run, no trials.

python examples/hypertraining.py [--steps 2000]

A network learns scikit-learn's digits from 200 images, a tenth of them with a wrong label. Weight
decay per layer and input noise go down the validation loss by its gradient.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from optuna.distributions import FloatDistribution
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils import data

from optuna_hypernet import HyperTraining


DECAY = FloatDistribution(1e-6, 1e-1, log=True)
SPACE = {"decay_1": DECAY, "decay_2": DECAY, "noise": FloatDistribution(0.0, 1.0)}


def train_loss(model: torch.nn.Module, batch: Any, hp: Any) -> torch.Tensor:
    x, y = batch
    loss = cross_entropy(model(x + hp["noise"] * torch.randn_like(x)), y)
    loss = loss + hp["decay_1"] * model[0].weight.square().sum()
    return loss + hp["decay_2"] * model[2].weight.square().sum()


def valid_loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def digits() -> tuple[HyperTraining, tuple[torch.Tensor, torch.Tensor]]:
    """The hyper-training of a new network, and test data."""
    torch.manual_seed(0)
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    order = torch.randperm(len(x))
    x, y = x[order].float() / 16, y[order]
    y[:200] = torch.where(torch.rand(200) < 0.1, torch.randint(10, (200,)), y[:200])
    train = data.DataLoader(data.TensorDataset(x[:200], y[:200]), batch_size=100, shuffle=True)
    valid, test = (x[200:900], y[200:900]), (x[900:], y[900:])
    model = torch.nn.Sequential(torch.nn.Linear(64, 50), torch.nn.Tanh(), torch.nn.Linear(50, 10))
    return HyperTraining(model, SPACE, train_loss, valid_loss, train, [valid], seed=0), test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    training, test = digits()
    untuned = training.train({name: kind.low for name, kind in SPACE.items()}, steps)
    tuned = training.fit(steps, progress=True)
    for name, one in {"untuned": untuned, "tuned": tuned}.items():
        test_loss = valid_loss(one.model.eval(), test).item()
        print(f"{name} validation loss {one.true_loss:.3f}, test loss {test_loss:.3f}")
    print(", ".join(f"{name} = {value:.2g}" for name, value in tuned.params.items()))


if __name__ == "__main__":
    main()
