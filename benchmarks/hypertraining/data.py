"""Images as rows of [0, 1], in three parts that share nothing."""

from typing import Any
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


Part = tuple[Tensor, Tensor]  # rows (n, F) and classes (n,)


class Split(NamedTuple):
    """Training, validation and test data."""

    train: Part
    valid: Part
    test: Part


def mnist(n_train: int, n_valid: int, seed: int) -> Split:
    """Other rows of MNIST's training images for every seed, and its 10,000 test images."""
    from benchmarks import images

    x, y, x_test, y_test = images.mnist()
    order = np.random.default_rng(seed).permutation(len(x))
    train, valid = order[:n_train], order[n_train : n_train + n_valid]
    return Split(part(x[train], y[train]), part(x[valid], y[valid]), part(x_test, y_test))


def digits(n_train: int, n_valid: int, seed: int) -> Split:
    """The same of scikit-learn's 1,797 digits of 8 × 8; what is left is for the test."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    rows = np.split(order, [n_train, n_train + n_valid])
    return Split(*(part(x[at] * (255 / 16), y[at]) for at in rows))


def part(x: np.ndarray, y: np.ndarray) -> Part:
    """Rows of [0, 1] and classes as tensors, from images of 0 to 255."""
    rows = torch.from_numpy(x.reshape(len(x), -1).astype(np.float32) / 255)
    return rows, torch.from_numpy(np.asarray(y, dtype=np.int64))


def batches(data: Part, size: int) -> list[Part]:
    """Batches in the order of the rows, which is random already."""
    return list(zip(data[0].split(size), data[1].split(size), strict=True))


def one_hot(y: Tensor) -> Any:
    """Targets (n, 10)."""
    return torch.nn.functional.one_hot(y, 10).float()
