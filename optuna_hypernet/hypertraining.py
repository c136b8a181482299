"""HyperTraining: the door to ``bilevel`` and ``response``, which hold the mathematics.

After Lorraine & Duvenaud (2018), "Stochastic Hyperparameter Optimization through Hypernetworks",
MacKay et al. (2019), "Self-Tuning Networks", and Bae & Grosse (2020), "Delta-STN".
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import pickle
import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from typing import Literal

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor
from torch import nn
from tqdm import tqdm

from optuna_hypernet.bilevel.densities import At
from optuna_hypernet.bilevel.densities import Everywhere
from optuna_hypernet.bilevel.optimizers import MakeOptimizer
from optuna_hypernet.bilevel.optimizers import MakeScheduler
from optuna_hypernet.bilevel.optimizers import adam
from optuna_hypernet.bilevel.optimizers import in_words
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.plans import joint
from optuna_hypernet.bilevel.plots import save_plot
from optuna_hypernet.bilevel.problem import Problem
from optuna_hypernet.bilevel.reports import Trial
from optuna_hypernet.bilevel.reports import Watch
from optuna_hypernet.bilevel.reports import store
from optuna_hypernet.bilevel.runs import Options
from optuna_hypernet.bilevel.runs import carry_out
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.coordinates import Params
from optuna_hypernet.coordinates import Shaped
from optuna_hypernet.counts import check_count
from optuna_hypernet.kinds import Setting
from optuna_hypernet.kinds import kind_of
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.batch import n_rows
from optuna_hypernet.response.hypernetworks import Name
from optuna_hypernet.response.losses import Augment
from optuna_hypernet.response.losses import NoEffectError
from optuna_hypernet.response.losses import TrainLoss
from optuna_hypernet.response.losses import ValidLoss
from optuna_hypernet.response.models import check_model
from optuna_hypernet.response.models import device_of


# Standard deviations from the middle, for the first look at the training loss. On either side, but
# not as far: a loss may depend on the size of a hyperparameter alone. Nor are all as far as the
# first: it may depend on ratios of them.
_PROBES = -1.5, 1.0
_LEAST_SHARE = 0.6
_LOOKS = 20  # batches, on one of which hyperparameters have to change the gradient
_FURTHEST = 3.0  # from the middle, where λ̂ starts: at the very ends nothing depends on z
_EVALUATIONS = 50  # of the whole validation data, in one run that does not count epochs


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

    ``response="structured"`` tunes the model *while* it trains (Self-Tuning Networks): the model's
    own layers respond to λ, every example of a batch has a λ of its own, and the result is a
    schedule of hyperparameters and the model that it trained::

        training = HyperTraining(
            Sequential(Linear(64, 200), ReLU(), Dropout(), Linear(200, 10)),
            {"2.p": FloatDistribution(0.0, 0.9), "decay": FloatDistribution(1e-6, 1e-2, log=True)},
            train_loss=lambda model, batch, hp: (
                cross_entropy(model(batch[0]), batch[1], reduction="none")
                + hp["decay"] * squared_norm(model)
            ),
            valid_loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
            train_data=train_loader,
            valid_data=valid_loader,
            response="structured",
        )
        tuned = training.fit(epochs=100)
        tuned.model, tuned.schedule

    There a name with a dot is the path of a dropout layer's rate. Others reach ``train_loss`` as
    tensors ``(B, *shape)``, a row per example, and the loss is ``(B,)`` or a mean. B is the length
    of a batch's first tensor. The dimension of examples must be kept all through the model, and
    come first, except in an LSTM or a GRU that has it second.

    The four algorithms of Lorraine & Duvenaud are :meth:`fit` (joint, the one to use),
    :meth:`fit_simplified`, :meth:`fit_globally`, and the baseline :meth:`cross_validate`; all
    return a ``Tuned``.
    Calling one after another goes on from the φ and λ̂ there are. Nothing that is passed in is
    changed, and neither are torch's global generators, threads or default dtype.

    Args:
        model: Any module in training mode; copied. One with running statistics, as of BatchNorm,
            is for structured responses alone.
        search_space: Float and int distributions of Optuna by name. A tensor-valued
            hyperparameter is one entry, ``Shaped(distribution, shape)``.
        train_loss: ``(model, batch, hp) -> scalar``, where ``hp`` maps names to tensors in
            natural units, of the entry's shape, on the device. For a structured response see
            above.
        valid_loss: ``(model, batch) -> scalar``, a mean over the batch that has a gradient, as
            an accuracy has not; it never sees λ. The model is in eval mode.
        train_data: Batches, iterated over many times: a loader, or a list.
        valid_data: Likewise, and other data.
        response: ``"low-rank"`` for any number of hyperparameters, of which it learns ten
            directions; ``"linear"``, which learns all, for up to dozens, or hundreds and a small
            model; ``"diagonal"`` for up to one per weight, each named after the weight it acts on
            and of a shape that broadcasts to it; ``"mlp"`` for :meth:`fit_globally`; or a module
            that maps coordinates ``(k, D)`` to displacements ``(k, P)`` of the P trainable
            weights.
            Costs: see the classes in :mod:`optuna_hypernet.response.hypernetworks`.
            ``"structured"`` for gates on Linear, Conv, Embedding, LSTM, GRU, attention and
            normalisation layers; a step costs two to three plain ones, an LSTM's more.
            ``"structured-delta"`` for the same gates, learnt as in Delta-STN: by two losses, one
            of the linearised network; four to six plain ones, an LSTM's more. Every operation of
            the model must have a derivative in forward mode there, which a softmax, attention,
            and an LSTM or GRU without gates do not have.
        elementary: Paths of modules that a structured response trains, but leaves without gates:
            those of which it says that they cannot respond.
        augment: ``(batch, hp, generator) -> batch`` for the train steps of a structured response.
        device: ``"cpu"``, ``"cuda"``, ...; by default where the model is.
        seed: Non-negative int, or None for fresh randomness. What torch draws in losses, models
            and loaders follows from it. What numpy or ``random`` draws there does not, except in
            a loader's workers: to be repeatable, draw with torch.
        start: Params where λ̂ starts, a little inside of the ends of the ranges; by default the
            middle of each.
        optimizer: Makes an optimizer of φ from its parameters; Adam with 0.005 by default. Of a
            structured response elementary and response weights get one each.
        hyper_optimizer: Makes that of λ̂'s coordinates, and of their spread if it adapts; by
            default Adam with steps of 0.03 standard deviations in all; along each coordinate
            of 0.05 if structured; if ``"diagonal"`` of 0.003, and along what the coordinates of a
            hyperparameter have in common of 0.015.
        clip: The largest norm of a gradient of φ; longer ones are shortened. Of a structured
            response elementary and response weights count apart.
        scheduler: Makes a ``torch.optim.lr_scheduler`` from an optimizer of φ. It is stepped
            after every train step, in ordinary training, too. It begins anew with every fit,
            with what finishes the model of one, and with every training.
            By default step sizes stay for half of a run, and then go down to 0 along a cosine;
            those of λ̂ always do.

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
        response: Name | Literal["structured", "structured-delta"] | nn.Module = "low-rank",
        elementary: Sequence[str] = (),
        augment: Augment | None = None,
        device: torch.device | str | None = None,
        seed: int | None = None,
        start: Params | None = None,
        optimizer: MakeOptimizer = adam,
        hyper_optimizer: MakeOptimizer | None = None,
        clip: float | None = None,
        scheduler: MakeScheduler | None = None,
    ) -> None:
        self._seeded = seed is not None
        seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        seed = check_count("seed", seed, 0)
        if clip is not None and not clip > 0:
            raise ValueError(f"clip is {clip}, but it must be positive, or None for no clipping.")
        where = device_of(model) if device is None else torch.device(device)
        self._arguments: dict[str, Any] = {
            "search_space": copy.copy(search_space),
            "train_loss": train_loss,
            "valid_loss": valid_loss,
            "train_data": train_data,
            "valid_data": valid_data,
            "response": response,
            "elementary": elementary,
            "augment": augment,
            "device": where,
            "seed": seed,
            "start": start,
            "optimizer": optimizer,
            "hyper_optimizer": hyper_optimizer,
            "clip": clip,
            "scheduler": scheduler,
        }
        dtype = check_model(model)
        self.coordinates = Coordinates(search_space, dtype, where)
        setting = Setting(train_loss, valid_loss, self.coordinates, where, seed)
        self._kind = kind_of(response, setting, elementary, augment)
        self._response = self._kind.response(model)
        self._problem = Problem(
            self.coordinates,
            train_data,
            valid_data,
            optimizer,
            hyper_optimizer or self._kind.defaults.hyper_optimizer,
            where,
            seed,
            self._kind.ordinary,
            clip,
            scheduler,
        )
        middle = torch.zeros(self.coordinates.D).to(where, dtype)
        z = (
            middle
            if start is None
            else self.coordinates.encode(start).clamp(-_FURTHEST, _FURTHEST)
        )
        self._bilevel = self._problem.bilevel(self._response, z)
        self._look(middle)

    def _look(self, middle: Tensor) -> None:
        """Takes both losses once: mistakes in them are named now, not after a while."""
        with self._response.trying():
            self._look_at_train_loss(middle)
            self._moves = self._bilevel.try_valid_loss()

    def _look_at_train_loss(self, middle: Tensor) -> None:
        """On the first batch on which hyperparameters act: a rare class may be in a later one."""
        shares = torch.linspace(1.0, _LEAST_SHARE, len(middle)).to(middle)
        ends = [middle + apart * shares for apart in _PROBES]
        refused: NoEffectError | None = None
        with contextlib.closing(self._problem.train_batches().all()) as batches:
            for batch in itertools.islice(batches, _LOOKS):
                rows = (n_rows(batch), -1) if self._response.per_example else (-1,)
                hps = [self.coordinates.natural(z.expand(*rows)) for z in ends]
                try:
                    self._response.probe(hps, batch, self._problem.seed)
                except NoEffectError as error:
                    refused = error
                else:
                    return
        assert refused is not None  # there is a batch, or Batches would have said so
        raise refused

    @property
    def params(self) -> dict[str, Any]:
        """λ̂ as it is now, in natural units."""
        return self.coordinates.decode(self._bilevel.z)

    @property
    def search_space(self) -> dict[str, BaseDistribution | Shaped]:
        """The search space as it was passed in."""
        return dict(self._arguments["search_space"])

    @property
    def trained(self) -> int:
        """Number of train steps so far."""
        return self._bilevel.trained

    def predict(self, params: Params, *, examples: int | None = None) -> float:
        """Predicted validation loss L_V(w_φ(λ)), of φ as it is now.

        A fit keeps, of all its evaluations, the last one about as good as the best, and φ goes on
        to learn around where λ̂ is after that. So at ``Tuned.params`` this may differ from
        ``Tuned.predicted_loss``, which is that of ``Tuned.model`` before it was finished.

        Args:
            params: Where.
            examples: Ends after the first validation batches that hold so many examples, the
                same for all ``params``, and takes no more of a batch of thousands; by default all
                validation data are used.

        Raises:
            TypeError: If ``examples`` is not an int.
            ValueError: If ``params`` are not of the search space, or ``examples`` not positive.
        """
        if examples is not None:
            check_count("examples", examples, 1)
        return self._bilevel.evaluate(self.coordinates.encode(params), examples)

    def best_response(self, params: Params) -> nn.Module:
        """A plain model of the user's class with the weights w_φ(λ); a copy, on the device.

        φ is as it is now, see :meth:`predict`. The copy is in training mode, like the model given:
        call ``eval()`` to use it.

        Raises:
            ValueError: If ``params`` are not of the search space.
        """
        return self._response.export(self.coordinates.encode(params))

    def fit(
        self,
        steps: int | None = None,
        *,
        epochs: int | None = None,
        samples: int | None = None,
        scale: float | None = None,
        entropy: float | None = None,
        ratio: int = 2,
        warm_up: int | None = None,
        patience: int = 20,
        finish: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        trial: Trial | None = None,
        progress: bool = False,
    ) -> Tuned:
        """Joint training (Algorithm 3): φ learns around λ̂, while λ̂ descends.

        With ``response="structured"`` these are Self-Tuning Networks: the scale adapts, too.

        Args:
            steps: Train steps in all; 3000 by default.
            epochs: The same as passes over the training data; λ̂ is evaluated after each.
            samples: λ's per train step, on one batch; an even number makes opposite pairs. 2 by
                default. A structured response has one per example, and takes no number.
            scale: Spread of those around λ̂, in standard deviations of the search space; 0.1 by
                default. A small one teaches no slope, a large one bends it. For a structured
                response it is where the spread starts; 0.5 by default.
            entropy: τ, the weight of the spread's entropy in valid steps of a structured
                response, which adapt it between 0.05 and 2; 0.01 by default. A larger one
                widens it.
            ratio: Train steps per valid step.
            warm_up: Train steps before λ̂ moves; by default a third of all, of a structured
                response a tenth.
            patience: Ends the run after that many evaluations without progress. There are 50, or
                one per epoch.
            finish: Steps of ordinary training at the reached λ̂ that the model gets in the end,
                unless they diverge or leave it worse; by default a fifth of all. None of a
                structured response, whose model is the result of the whole schedule, not of λ̂
                alone.
            checkpoint: File that is written at every evaluation. If it exists, the run goes on
                from there, bit by bit as if it had not been interrupted if there is a ``seed``.
            trial: An Optuna trial. Each evaluation is reported to it, as that of an epoch or of
                a train step, and it may prune the run. What is reported is the validation loss,
                or its negative if the study maximises, so that more is better there; in a study
                of several objectives Optuna takes no reports and prunes nothing. It keeps params
                and schedule as user attributes; of a whole run optuna-dashboard, if installed,
                gets a plot, too.
            progress: Whether to show a progress bar.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If a number is out of its range, an argument is not for this response, no
                weight responds to λ, or the checkpoint is of another run.
            FloatingPointError: If a loss or its gradient is not finite: where, and at which λ.
            optuna.TrialPruned: If the trial says so; the path so far is stored in it first.
        """
        steps, batches = self._length(steps, epochs)
        plan = self._kind.defaults.plan(
            steps=steps,
            samples=samples,
            scale=scale,
            entropy=entropy,
            ratio=ratio,
            warm_up=warm_up,
        )
        marks = plan.evenly(_EVALUATIONS) if batches is None else plan.by_epochs(batches)
        options = Options(patience, checkpoint, progress, marks)
        if trial is None:
            return self._run(plan, options, finish)
        watch = Watch(trial, plan, self.coordinates, batches)
        tuned = self._run(plan, replace(options, watch=watch), finish)
        store(trial, tuned.params, tuned.path)
        save_plot(trial, self.coordinates, tuned.path)
        return tuned

    def fit_simplified(
        self,
        steps: int = 3000,
        *,
        ratio: int = 2,
        warm_up: int = 0,
        patience: int = 20,
        finish: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Tuned:
        """Simplified joint training (Algorithm 4): φ learns at λ̂ alone.

        Only λ̂'s own drift teaches it a slope, so λ̂ has to move from the start: without a
        ``warm_up``. For arguments and errors see :meth:`fit`.
        """
        self._check_whole("fit_simplified")
        plan = joint(At(), samples=1, steps=steps, ratio=ratio, warm_up=warm_up)
        options = Options(patience, checkpoint, progress, plan.evenly(_EVALUATIONS))
        return self._run(plan, options, finish)

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
        self._check_whole("fit_globally")
        steps = check_count("steps", steps, 1)
        samples = check_count("samples", samples, 1)
        descent = check_count("descent", descent, 1)
        plan = Plan(Everywhere(), samples, warm_up=steps, cycles=descent, ratio=0)
        options = Options(patience, checkpoint, progress, plan.evenly(_EVALUATIONS))
        return self._run(plan, options, finish)

    def cross_validate(
        self,
        candidates: int | Iterable[Params] = 10,
        steps: int = 1000,
        *,
        progress: bool = False,
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
        if not isinstance(candidates, Iterable):
            number = check_count("candidates", candidates, 1)
            draws = Everywhere()(self._bilevel.z, number, generator(self._problem.seed, 1))
            candidates = [self.coordinates.decode(z) for z in draws]
        candidates = list(candidates)
        if not candidates:
            raise ValueError("There are no candidates. Pass some params, or a positive number.")
        shown = tqdm(candidates, disable=not progress)
        tried = [self.train(params, steps) for params in shown]
        best = min(tried, key=lambda one: (math.isnan(one.true_loss), one.true_loss))
        path = [Point(i, steps, one.params, one.true_loss) for i, one in enumerate(tried)]
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

    def replay(self, tuned: Tuned, *, train_data: Iterable[Any] | None = None) -> Tuned:
        """Ordinary training of the model given, from its start, along a schedule that was found.

        It is the control of a run that moved λ: the schedule alone, without a response, with
        the step sizes that the run had, even if it ended early. The result is the model with the
        lowest validation loss on the way. Where λ was drawn around λ̂ with a spread that adapts,
        every example has its own here, too: noise in λ is a part of what was found.

        Args:
            tuned: From :meth:`fit`; its path is followed, in lines from evaluation to evaluation.
                Without a point's ``spread`` all examples have its ``params``.
            train_data: Other data to train on, say training and validation data together.

        Raises:
            TypeError: If ``tuned`` is none.
            ValueError: If the path is of another search space, or is not one of steps.
            FloatingPointError: If a loss is not finite.
        """
        if not isinstance(tuned, Tuned):
            raise TypeError(
                f"replay got a {type(tuned).__name__}, but it follows the path of a Tuned. Pass "
                "what fit returned; for fixed params use train(params)."
            )
        space = self.coordinates
        path = [
            (point.steps, torch.stack([space.encode(point.params), space.by_column(point.spread)]))
            for point in tuned.path
        ]
        increase = all(earlier[0] < later[0] for earlier, later in itertools.pairwise(path))
        if not (path and increase and path[-1][0] > 0):
            raise ValueError(
                f"The path has the train steps {tuned.steps.tolist()}, along which nothing can "
                "be replayed: they must increase, from none to some. Pass what fit returned."
            )
        data = self._problem.train_data if train_data is None else train_data
        problem = replace(self._problem, train_data=data)
        return problem.replay(self._response.original(), path, tuned.planned)

    def state_dict(self) -> dict[str, Any]:
        """Everything from which training goes on, copied: for ``torch.save``, or to keep."""
        return copy.deepcopy(self._bilevel.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state of a HyperTraining made from the same arguments."""
        self._bilevel.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """The arguments, data among them, and the state.

        Raises:
            TypeError: If a function that was passed in cannot be pickled.
        """
        makers = ("optimizer", "hyper_optimizer", "scheduler")
        for name in ("train_loss", "valid_loss", "augment", *makers):
            try:
                pickle.dumps(self._arguments[name])
            except (AttributeError, TypeError, pickle.PicklingError) as error:
                raise TypeError(
                    f"{name} cannot be pickled, so this HyperTraining cannot ({error}). Define it "
                    "by def at the top of a module; or keep state_dict() instead, and load it "
                    "into a HyperTraining made anew from the same arguments."
                ) from error
        return self._contents()

    def __setstate__(self, contents: dict[str, Any]) -> None:
        HyperTraining.__init__(self, **contents["arguments"])
        self.load_state_dict(contents["state"])

    def __deepcopy__(self, memo: dict[int, Any]) -> HyperTraining:
        """A copy in memory needs no pickling: any function will do."""
        copied = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self._contents(), memo))
        return copied

    def _contents(self) -> dict[str, Any]:
        arguments = {**self._arguments, "model": self._response.original()}
        return {"arguments": arguments, "state": self._bilevel.state_dict()}

    def _check_whole(self, method: str) -> None:
        """Refuses algorithms that a structured response is not for."""
        if self._response.per_example:
            raise ValueError(
                f"{method} is not for a structured response, which learns around λ̂ and there "
                'alone. Use fit, or another response, say response="low-rank".'
            )

    def _length(self, steps: int | None, epochs: int | None) -> tuple[int, int | None]:
        """Train steps in all; and how many of them an epoch has, if epochs are counted."""
        if epochs is None:
            return check_count("steps", 3000 if steps is None else steps, 1), None
        if steps is not None:
            raise ValueError(f"steps is {steps} and epochs is {epochs}. Pass one of the two.")
        batches = len(self._problem.train_batches())
        return check_count("epochs", epochs, 1) * batches, batches

    def _run(self, plan: Plan, options: Options, finish: int | None) -> Tuned:
        if finish is None:
            finish = int(plan.train_steps * self._kind.defaults.finish)
        self._bilevel.check_length(check_count("finish", finish, 0))
        if not self._moves:
            raise ValueError(
                "No weight that valid_loss depends on responds to λ, so λ̂ cannot move. Let layers "
                "respond, by naming fewer of them in elementary=[...]; or use train or "
                "cross_validate, which do not move it."
            )
        options = replace(options, arguments=self._described())
        record = carry_out(self._bilevel, self._response, plan, options)
        adapts = plan.entropy is not None
        if adapts and (narrow := self._bilevel.at_floor()):
            warnings.warn(
                f"The spread of {narrow} ended at its floor, so little was learnt of how the "
                "model responds to that. With more entropy= it is wider; or pass a wider range "
                "of these hyperparameters.",
                stacklevel=3,
            )
        path = record.points(plan, self.coordinates)
        return replace(
            self._finished(record.kept(self._response), record.kept_z, finish, record.best),
            predicted_loss=record.best,
            path=path,
            stopped=record.stopped,
            flat=self._bilevel.at_ceiling() if adapts else (),
            planned=plan.train_steps,
        )

    def _described(self) -> dict[str, str]:
        """In words all that makes a run what it is, as far as it can be told, by name."""
        its = self._arguments
        return {
            "model": in_words(self._response.original()),
            "response": in_words(its["response"]),
            "elementary": str(sorted(its["elementary"])),
            "clip": str(its["clip"]),
            **({"seed": str(its["seed"])} if self._seeded else {}),
            **self._bilevel.described(),
        }

    def _finished(self, model: nn.Module, z: Tensor, steps: int, best: float) -> Tuned:
        """The model trained on at fixed coordinates, or as it is if that leaves it worse."""
        try:
            trained = self._problem.train(model, z, steps)
        except FloatingPointError as error:
            warnings.warn(
                f"The {steps} steps of ordinary training at the end were dropped, and the model "
                f"is as the run left it: {error}",
                stacklevel=4,
            )
        else:
            if trained.true_loss <= best:  # else too short to settle from full step sizes
                return trained
        return self._problem.train(model, z, 0)
