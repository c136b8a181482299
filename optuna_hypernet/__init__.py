"""Hyperparameter optimisation for Optuna by gradient descent through a hypernetwork."""

from optuna_hypernet.sampler import HypernetSampler
from optuna_hypernet.version import __version__


__all__ = ["HypernetSampler", "__version__"]
