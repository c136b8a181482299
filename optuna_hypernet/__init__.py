"""Hyperparameter optimisation for Optuna by gradient descent through a hypernetwork.

Training at hyperparameters λ ends at weights w*(λ), the *best response*; the validation loss
depends on λ through it. A *hypernetwork* w_φ(λ) learns that map, and λ then goes down by gradient
descent on the predicted validation loss. :class:`HypernetSampler` does so from trials alone: the
hypernetwork there maps λ to the weights of a small response model, which, as only final values
are seen, is one number. It amounts to a gated neural regressor with a Bayesian output layer.

The map of the sampler, in the order in which a suggestion passes through it::

    sampler        Optuna's hooks, guards and messages; the only module besides history that
                   sees a Study
    history        a study's trials as arrays, each finished trial read once
    space          SearchSpace: params ↔ rows of [0, 1]^d, and the embedding of rows
    choices        what is read of a choice, and of one among numbers
    suggestion     one suggestion: start, condition, descend; knows no Study
    conditions     which parameters are asked for under which choices, read off the trials
    surrogate/     λ → response, learnt from trials alone
      ensemble       members fitted at checkpoints, by warp and gates, weighed by order left out
      outcomes       values, and what reports of pruned and running trials promise
      front          of several objectives: where the Pareto front is to be improved upon
      warp           output warps
      evidence       log evidence, its gradient, and the fit of gates and amplitudes
      hypernetwork   the prior: gates, infinitely wide trunk, Gaussian head integrated out
      posterior      the prior conditioned on trials
    acquisition    log expected improvement of the mixture of members, in all objectives
    trust          the region that a young study does not leave
    bounds         where ranges depend on another parameter: what can be had
    risk           the chance that a trial fails or violates a constraint, learnt likewise
    branches       in a conditional space: which choice is searched, by Thompson sampling
    domain         where a suggestion may lie: box, grids, conditions, what is fixed already
    descent        screen, flip, climb, polish: where the acquisition is largest
    threads        one BLAS thread inside a suggestion
    counts         refuses what is no count
    prediction     what is known without a trial, as one more column of the embedding:
      sources        with ``source_studies=``, what earlier studies predict
      training       with ``training=``, what hyper-training predicts

numpy and scipy do all the work of such a suggestion; torch is never imported by it. Modules below
``sampler`` and ``history`` know nothing of Optuna beyond its distributions.

:class:`HyperTraining` is shown the model and its two losses, and learns its very weights; it needs
torch, which is imported when the name is asked for::

    hypertraining  HyperTraining: a user's own model tuned through w_φ(λ)
    coordinates    hyperparameters as unconstrained, standardised coordinates; Shaped
    kinds          what a name of a response stands for, and what is done with it by default
    bilevel/       the loop (train step, valid step), plans (the algorithms), densities of λ, runs
                   (early stop, checkpoints), reports (to a trial) and plots, optimizers, batches,
                   problem, tuned
    response/      λ → the user's weights
      weights        all of them at once, as one vector that hypernetworks gives
      structured     the user's own layers with gates, an own λ for every example; delta,
                     which learns them by two losses
      siblings       which layers have gates: layers (squared_norm is there), recurrent,
                     attention, dropout
      models, losses, batch
                     what may be passed in
    randomness     torch randomness from a seed and counters; global generators left alone

``HypernetSampler(training=HyperTraining(...))`` is both at once. Before the first suggestion the
training is fitted, if it has not been. That suggestion is its λ̂, and the validation loss that it
predicts around there is one more input of the surrogate, whose gates learn from the trials how
far it can be trusted. ``HypernetSampler(source_studies=[...])`` does the same with what earlier
studies, of the same pipeline on other data, predict.
"""

import importlib as _importlib
import typing as _typing

from optuna_hypernet.sampler import HypernetSampler
from optuna_hypernet.version import __version__


if _typing.TYPE_CHECKING:
    from optuna_hypernet.coordinates import Shaped
    from optuna_hypernet.hypertraining import HyperTraining
    from optuna_hypernet.response.layers import squared_norm

__all__ = ["HyperTraining", "HypernetSampler", "Shaped", "__version__", "squared_norm"]

_NEED_TORCH = {
    "HyperTraining": "hypertraining",
    "Shaped": "coordinates",
    "squared_norm": "response.layers",
}


def __getattr__(name: str) -> _typing.Any:
    if name in _NEED_TORCH:
        return getattr(_importlib.import_module(f"optuna_hypernet.{_NEED_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
