"""HyperTraining: the door to ``bilevel`` and ``response``, which hold the mathematics.

After Lorraine & Duvenaud (2018), "Stochastic Hyperparameter Optimization through Hypernetworks".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from torch import nn
from tqdm import tqdm

from optuna_hypernet.bilevel.loop import MakeOptimizer
from optuna_hypernet.bilevel.plans import Around
from optuna_hypernet.bilevel.plans import At
from optuna_hypernet.bilevel.plans import Everywhere
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.plans import check_count
from optuna_hypernet.bilevel.plans import check_scale
from optuna_hypernet.bilevel.plans import joint
from optuna_hypernet.bilevel.problem import Problem
from optuna_hypernet.bilevel.problem import adam
from optuna_hypernet.bilevel.problem import hyper_adam
from optuna_hypernet.bilevel.problem import hyper_adam_each
from optuna_hypernet.bilevel.runs import TIE
from optuna_hypernet.bilevel.runs import Options
from optuna_hypernet.bilevel.runs import carry_out
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.coordinates import Params
from optuna_hypernet.coordinates import Shaped
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.hypernetworks import Diagonal
from optuna_hypernet.response.hypernetworks import Name
from optuna_hypernet.response.hypernetworks import hypernetwork
from optuna_hypernet.response.weights import TrainLoss
from optuna_hypernet.response.weights import ValidLoss
from optuna_hypernet.response.weights import Weights
from optuna_hypernet.response.weights import device_of


_PROBE = 1.5  # standard deviations on either side, for the first look at the training loss


class HyperTraining:
    """A model, its two losses and a search space; the best response is learnt in between.

    A *hypernetwork* w_φ(λ) gives the model's weights for any hyperparameters λ. Train steps
    teach it to minimise the training loss at λ drawn around (or all over) the search space; valid
    steps move the current λ̂ down the validation loss of w_φ(λ̂). So hyperparameters are tuned, one
    or thousands, in about the time of one training::

        training = HyperTraining(
            model,
            {"decay": FloatDistribution(1e-6, 1e-1, log=True)},
            train_loss=lambda model, batch, hp: cross_entropy(model(batch[0]), batch[1])
            + hp["decay"] * sum(w.square().sum() for w in model.parameters()),
            valid_loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
            train_data=train_loader,
            valid_data=valid_loader,
        )
        tuned = training.fit()
        tuned.params, tuned.model

    What can be tuned is whatever the training loss depends on and changes where training ends:
    penalties, noise, augmentation, weights of examples or classes. The optimizer's own settings
    (learning rate) and the architecture are for the outer study.

    The four algorithms of the paper have the same face: :meth:`fit` (joint, the one to use),
    :meth:`fit_simplified`, :meth:`fit_globally`, and the baseline :meth:`cross_validate`. Calling
    one after another goes on from the φ and λ̂ there are. Nothing that is passed in is changed,
    and neither are torch's global generators, threads or default dtype.

    Args:
        model: Any module in training mode, except one with running statistics; copied.
        search_space: Float and int distributions of Optuna by name. A tensor-valued
            hyperparameter is one entry, ``Shaped(distribution, shape)``.
        train_loss: ``(model, batch, hp) -> scalar``, where ``hp`` maps names to tensors in
            natural units, of the entry's shape, on the device.
        valid_loss: ``(model, batch) -> scalar``, a mean over the batch; it never sees λ. The
            model is in eval mode.
        train_data: Batches, iterated over many times: a loader, or a list.
        valid_data: Likewise, and other data.
        response: ``"linear"`` for a few hyperparameters, ``"low-rank"`` for any number,
            ``"diagonal"`` for up to one per weight, each named after the weight it acts on and of
            a shape that broadcasts to it, ``"mlp"`` for :meth:`fit_globally`; or a module that
            maps coordinates ``(k, D)`` to displacements ``(k, P)`` of the P trainable weights.
            Costs: see the classes in :mod:`optuna_hypernet.response.hypernetworks`.
        device: ``"cpu"``, ``"cuda"``, ...; by default where the model is.
        seed: Non-negative int, or None for fresh randomness.
        start: Params where λ̂ starts; by default the middle of every range.
        optimizer: Makes the optimizer of φ from its parameters; Adam with 0.005 by default.
        hyper_optimizer: Makes that of λ̂'s coordinates. By default Adam, whose step is 0.03
            standard deviations long, or 0.003 along each coordinate if ``"diagonal"``.

    Raises:
        TypeError: If an argument is of the wrong type, or data can be iterated over only once.
        ValueError: If something cannot be learnt this way: what, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        search_space: Mapping[str, BaseDistribution | Shaped],
        train_loss: TrainLoss,
        valid_loss: ValidLoss,
        train_data: Iterable[Any],
        valid_data: Iterable[Any],
        *,
        response: Name | nn.Module = "low-rank",
        device: torch.device | str | None = None,
        seed: int | None = None,
        start: Params | None = None,
        optimizer: MakeOptimizer = adam,
        hyper_optimizer: MakeOptimizer | None = None,
    ) -> None:
        seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        check_count("seed", seed, 0)
        where = device_of(model) if device is None else torch.device(device)
        self._response = Weights(model, train_loss, valid_loss, where)
        self.coordinates = Coordinates(search_space, self._response.dtype, where)
        sizes = (self.coordinates.D, self._response.n_weights)
        if response == "diagonal":
            made: nn.Module = Diagonal(self._response.owners(self.coordinates.shapes), sizes[0])
            hyper_optimizer = hyper_optimizer or hyper_adam_each
        else:
            made = hypernetwork(response, *sizes, generator(seed))
            hyper_optimizer = hyper_optimizer or hyper_adam
        self._response.hypernetwork = made.to(where, self._response.dtype)
        losses, data = (train_loss, valid_loss), (train_data, valid_data)
        self._problem = Problem(
            self.coordinates, *losses, *data, optimizer, hyper_optimizer, where, seed
        )
        middle = torch.zeros(self.coordinates.D).to(where, self._response.dtype)
        z = middle if start is None else self.coordinates.encode(start)
        self._bilevel = self._problem.bilevel(self._response, z)
        # Mistakes in the losses are named now, not after a while.
        hps = [self.coordinates.natural(middle + apart) for apart in (-_PROBE, _PROBE)]
        batch = next(self._problem.train_batches().all())
        self._response.probe(hps, batch, seed)
        self._bilevel.evaluate(z)

    @property
    def params(self) -> dict[str, Any]:
        """λ̂ as it is now, in natural units."""
        return self.coordinates.decode(self._bilevel.z)

    def predict(self, params: Params) -> float:
        """Predicted validation loss L_V(w_φ(λ)), over all validation data.

        Raises:
            ValueError: If ``params`` are not of the search space.
        """
        return self._bilevel.evaluate(self.coordinates.encode(params))

    def best_response(self, params: Params) -> nn.Module:
        """A plain model of the user's class with the weights w_φ(λ); a copy, on the device.

        Raises:
            ValueError: If ``params`` are not of the search space.
        """
        return self._response.export(self.coordinates.encode(params))

    def fit(
        self,
        steps: int = 3000,
        *,
        samples: int = 2,
        scale: float = 0.1,
        ratio: int = 2,
        warm_up: int | None = None,
        patience: int = 20,
        finish: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Tuned:
        """Joint training (Algorithm 3): φ learns around λ̂, while λ̂ descends.

        Args:
            steps: Train steps in all.
            samples: λ's per train step, on one batch; an even number makes opposite pairs.
            scale: Spread of those around λ̂, in standard deviations of the search space. A small
                one teaches no slope, a large one bends it.
            ratio: Train steps per valid step.
            warm_up: Train steps before λ̂ moves; a third of ``steps`` by default.
            patience: Ends the run after that many evaluations (of 50) without progress.
            finish: Steps of ordinary training at the reached λ̂ that the model gets in the end,
                unless they leave it worse; a fifth of ``steps`` by default.
            checkpoint: File that is written at every evaluation. If it exists, the run goes on
                from there, bit by bit as if it had not been interrupted.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: If a number is out of its range, or the checkpoint is of another run.
            FloatingPointError: If a loss is not finite: where, and at which λ.
        """
        check_scale(scale)
        plan = joint(Around(scale), samples, steps, ratio, warm_up)
        return self._run(plan, Options(patience, checkpoint, progress), finish)

    def fit_simplified(
        self,
        steps: int = 3000,
        *,
        ratio: int = 2,
        warm_up: int | None = None,
        patience: int = 20,
        finish: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Tuned:
        """Simplified joint training (Algorithm 4): φ learns at λ̂ alone.

        Only λ̂'s own drift teaches it a slope, so λ̂ has to move from the start: without a
        ``warm_up``. For arguments and errors see :meth:`fit`.
        """
        plan = joint(At(), 1, steps, ratio, 0 if warm_up is None else warm_up)
        return self._run(plan, Options(patience, checkpoint, progress), finish)

    def fit_globally(
        self,
        steps: int = 5000,
        *,
        samples: int = 8,
        descent: int = 300,
        patience: int = 20,
        finish: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Tuned:
        """Global training (Algorithm 2): φ learns all over the search space, then λ̂ descends.

        ``steps`` train steps with ``samples`` λ's each, spread over every range, are followed by
        ``descent`` valid steps. Afterwards :meth:`predict` holds for any params. For the rest
        and the errors see :meth:`fit`.
        """
        for name, value in (("steps", steps), ("samples", samples), ("descent", descent)):
            check_count(name, value, 1)
        plan = Plan(Everywhere(), samples, warm_up=steps, cycles=descent, ratio=0)
        return self._run(plan, Options(patience, checkpoint, progress), finish)

    def cross_validate(
        self, candidates: int | Sequence[Params] = 10, steps: int = 1000, progress: bool = False
    ) -> Tuned:
        """The baseline (Algorithm 1): trains at each candidate from the start, takes the best.

        Args:
            candidates: Params, or how many to draw from the search space.
            steps: Train steps of each.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: If there is no candidate, or one is not of the search space.
            FloatingPointError: If a loss is not finite.
        """
        if isinstance(candidates, int):
            check_count("candidates", candidates, 1)
            draws = Everywhere()(self._bilevel.z, candidates, generator(self._problem.seed, 1))
            candidates = [self.coordinates.decode(z) for z in draws]
        if not candidates:
            raise ValueError("There are no candidates. Pass some params, or a positive number.")
        shown = tqdm(candidates, disable=not progress)
        tried = [self.train(params, steps) for params in shown]
        best = min(tried, key=lambda one: one.true_loss)
        path = [Point(i, one.params, one.true_loss) for i, one in enumerate(tried)]
        return replace(best, path=path)

    def train(self, params: Params, steps: int = 1000, *, model: nn.Module | None = None) -> Tuned:
        """Ordinary training at fixed params: the true best response that w_φ(λ) approximates.

        Args:
            params: Held fixed.
            steps: Train steps.
            model: Where to start, say ``best_response(params)``; by default the model given.

        Raises:
            ValueError: If ``params`` are not of the search space.
            FloatingPointError: If a loss is not finite.
        """
        check_count("steps", steps, 0)
        start = self._response.original() if model is None else model
        return self._problem.train(start, self.coordinates.encode(params), steps)

    def state_dict(self) -> dict[str, Any]:
        """Everything from which training goes on: for ``torch.save``."""
        return self._bilevel.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state of a HyperTraining made from the same arguments."""
        self._bilevel.load_state_dict(state)

    def _run(self, plan: Plan, options: Options, finish: int | None) -> Tuned:
        finish = plan.train_steps // 5 if finish is None else finish
        check_count("finish", finish, 0)
        record = carry_out(self._bilevel, self._response, plan, options)
        assert record.best_z is not None
        assert record.best_model is not None
        model = self._response.export(record.best_z)
        model.load_state_dict(record.best_model)
        trained = self._problem.train(model, record.best_z, finish)
        if trained.true_loss > (1 + TIE) * record.best:  # too short to settle at full step size
            trained = self._problem.train(model, record.best_z, 0)
        path = [Point(done, self.coordinates.decode(z), loss) for done, z, loss in record.path]
        return replace(trained, predicted_loss=record.best, path=path, stopped=record.stopped)
