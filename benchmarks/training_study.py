"""`training-study`: trials that a hypernetwork of the model's own weights has seen coming.

A network with two hidden layers learns images; twelve regularisation hyperparameters are tuned.
An objective call is one ordinary training at fixed hyperparameters; its value is the validation
loss. All studies have the same data, seeds, losses and one thread, and trainings from the start,
but for the first:

* `warm`: `HypernetSampler(training=...)`; its trials start from `training.best_response`, with
  an eighth of the steps and a tenth of the step size, as one fine-tunes;
* `told`: the same sampler, trainings from the start;
* `hypernet`: the same sampler without a training;
* `tpe` and `gp`: Optuna's, with their defaults.

The cost is counted in gradient steps, one pass forward and one backward of one training batch:
those of the trials, one for every λ of a train step of hyper-training and for every valid step,
and for predictions, which are forward passes, a third of a step per as many examples. Seconds
hold everything.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from matplotlib.axes import Axes
from optuna.distributions import FloatDistribution
from torch import Tensor
from torch import nn
from torch.nn.functional import avg_pool2d
from torch.nn.functional import cross_entropy

from benchmarks import THREADS
from benchmarks import figures
from benchmarks import images
from benchmarks import positive
from benchmarks import samplers
from benchmarks.kept import Folder
from optuna_hypernet import HypernetSampler
from optuna_hypernet import HyperTraining
from optuna_hypernet.training import SCALE


SETS = {"mnist": images.mnist, "fashion-mnist": images.fashion_mnist}
BATCH, HIDDEN = 250, 64
NOISY = 0.1  # share of training labels that are redrawn
RATE = 3e-3
TOLD = ("warm", "told")
PEERS = ("hypernet", "tpe", "gp")
OUT = Path("out") / "training-study.svg"
KEPT = Path(__file__).parents[1] / ".cache" / "benchmarks" / "training-study"
SAMPLES = 2  # λ's per train step of hyper-training
SHORTER, FINER = 8, 10  # a warm training than one from the start, in steps and their size


def log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


SPACE = {
    **{f"l2_{i}": log(1e-6, 1e-2) for i in range(3)},
    **{f"l1_{i}": log(1e-7, 1e-3) for i in range(3)},
    "bias_l2": log(1e-6, 1e-1),
    "activation_l2": log(1e-6, 1e-1),
    "logit_l2": log(1e-6, 1e-1),
    "input_noise": FloatDistribution(0.0, 1.0),
    "hidden_noise": FloatDistribution(0.0, 1.0),
    "label_smoothing": FloatDistribution(0.0, 0.3),
}

Batch = tuple[Tensor, Tensor]


class Loader:
    """Shuffled batches of tensors."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Any:
        for rows in torch.randperm(len(self.x)).split(BATCH):
            yield self.x[rows], self.y[rows]


class Network(nn.Module):
    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(*sizes) for sizes in [(pixels, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 10)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](self.layers[1](self.layers[0](x).relu()).relu())


def train_loss(model: nn.Module, batch: Batch, hp: Any) -> Tensor:
    (x, y), (first, second, last) = batch, model.layers
    h1 = first(x + hp["input_noise"] * torch.randn_like(x)).relu()
    h2 = second(h1 * (1 + hp["hidden_noise"] * torch.randn_like(h1))).relu()
    logits = last(h2)
    scores = logits.log_softmax(1)
    wrong, right = -scores.mean(), -scores.gather(1, y[:, None]).mean()
    loss = right + hp["label_smoothing"] * (wrong - right)
    loss = loss + hp["activation_l2"] * (h1.square().mean() + h2.square().mean())
    loss = loss + hp["logit_l2"] * logits.square().mean()
    for i, layer in enumerate(model.layers):
        loss = loss + hp[f"l2_{i}"] * layer.weight.square().sum()
        loss = loss + hp[f"l1_{i}"] * layer.weight.abs().sum()
        loss = loss + hp["bias_l2"] * layer.bias.square().sum()
    return loss


def valid_loss(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


@dataclass(frozen=True)
class Data:
    train: Loader
    valid: Batch
    test: Batch

    @property
    def pixels(self) -> int:
        return self.valid[0].shape[1]


def load(name: str, n_train: int, n_valid: int, pool: int) -> Data:
    """Images averaged over `pool` x `pool` pixels; the same split and noise for everybody."""
    x, y, x_test, y_test = SETS[name]()

    def flat(pictures: np.ndarray) -> Tensor:
        return avg_pool2d(torch.tensor(pictures)[:, None].float() / 255, pool).flatten(1)

    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))[: n_train + n_valid]
    labels = torch.tensor(y[order])
    redrawn = torch.tensor(rng.random(n_train) < NOISY)
    noise = torch.tensor(rng.integers(10, size=n_train))
    noisy = torch.where(redrawn, noise, labels[:n_train])
    pictures = flat(x[order])
    return Data(
        Loader(pictures[:n_train], noisy),
        (pictures[n_train:], labels[n_train:]),
        (flat(x_test), torch.tensor(y_test)),
    )


def network(data: Data, seed: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(data.pixels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=RATE)


def train(
    data: Data,
    params: dict[str, float],
    steps: int,
    seed: int,
    warm: nn.Module | None = None,
) -> tuple[float, float]:
    """One ordinary training from the start, or of a warm model; validation and test loss."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, rate = (Network(data.pixels), RATE) if warm is None else (warm, RATE / FINER)
        optimizer, done = torch.optim.Adam(model.parameters(), lr=rate), 0
        while done < steps:
            for batch in data.train:
                optimizer.zero_grad()
                train_loss(model, batch, params).backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break
    with torch.no_grad():
        return float(valid_loss(model, data.valid)), float(valid_loss(model, data.test))


@dataclass
class Told:
    """A hyper-training of the same model, with the gradient steps that it has taken so far."""

    data: Data
    seed: int
    validated: float = 0.0  # validation examples, those that only went forward by a third

    def __post_init__(self) -> None:
        x, y = self.data.valid
        self.training = HyperTraining(
            network(self.data, self.seed),
            SPACE,
            train_loss,
            self.count,
            self.data.train,
            list(zip(x.split(BATCH), y.split(BATCH), strict=True)),
            seed=self.seed,
            optimizer=adam,
        )

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        self.validated += len(batch[0]) * (1 if torch.is_grad_enabled() else 1 / 3)
        return valid_loss(model, batch)

    @property
    def steps(self) -> float:
        return SAMPLES * self.training.trained + self.validated / BATCH


@dataclass
class Run:
    """A study, trial by trial: validation and test loss, and cumulative steps and seconds."""

    valid: np.ndarray
    test: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray

    @property
    def best(self) -> np.ndarray:
        return np.minimum.accumulate(self.valid)

    def first(self, loss: float) -> int | None:
        """The first trial that is at least as low."""
        reached = np.flatnonzero(self.best <= loss)
        return int(reached[0]) if len(reached) else None


def study(name: str, data: Data, trials: int, fit: int, steps: int, seed: int) -> Run:
    """One study; seconds of hyper-training and of suggestions included."""
    start = time.perf_counter()
    told = Told(data, seed) if name in TOLD else None
    if told:
        told.training.fit(fit, scale=SCALE, finish=0)
        sampler: optuna.samplers.BaseSampler = HypernetSampler(seed=seed, training=told.training)
    else:
        sampler = samplers.factory(name)(seed)
    rows: list[tuple[float, ...]] = []
    each = steps // SHORTER if name == "warm" else steps

    def objective(trial: optuna.Trial) -> float:
        params = {
            name: trial.suggest_float(name, kind.low, kind.high, log=kind.log)
            for name, kind in SPACE.items()
        }
        warm = told.training.best_response(params) if told and name == "warm" else None
        valid, test = train(data, params, each, seed, warm)
        spent = each * (len(rows) + 1) + (told.steps if told else 0)
        rows.append((valid, test, spent, time.perf_counter() - start))
        return valid

    optuna.create_study(sampler=sampler).optimize(objective, n_trials=trials)
    return Run(*np.array(rows).T)


def describe(name: str, runs: dict[str, Run], target: dict[str, float]) -> None:
    run, best = runs[name], int(np.argmin(runs[name].valid))
    line = f"{name:10}{len(run.valid):7}{run.valid[best]:11.4f}{run.test[best]:10.4f}"
    line += f"{run.steps[-1]:11.0f}{run.seconds[-1]:9.0f}"
    for peer, loss in target.items():
        at = run.first(loss)
        share = "never" if at is None else f"{run.steps[at] / runs[peer].steps[-1]:.3f}"
        line += f"{share:>14}"
    print(line, flush=True)


def means(name: str, seeds: list[dict[str, Run]]) -> None:
    """Lowest validation losses, their test losses and all gradient steps, means over seeds."""
    print(f"\n{name}, means over seeds: {len(seeds)}")
    for one in seeds[0]:
        best = [(runs[one], int(np.argmin(runs[one].valid))) for runs in seeds]
        rows = [(run.valid[at], run.test[at], run.steps[-1]) for run, at in best]
        valid, test, steps = np.mean(rows, axis=0)
        print(f"{one:10}{len(seeds[0][one].valid):7}{valid:11.4f}{test:10.4f}{steps:11.0f}")


def draw(curves: dict[str, list[dict[str, Run]]], grid: np.ndarray) -> None:
    """Best validation loss so far against steps and seconds; a row per data set."""
    columns: list[tuple[str, Callable[[Run], np.ndarray]]] = [
        ("gradient steps", lambda run: run.steps),
        ("seconds", lambda run: run.seconds),
    ]
    for row, (title, seeds) in zip(grid, curves.items(), strict=True):
        for axes, (label, x) in zip(row, columns, strict=True):
            lines(axes, seeds, x)
            axes.set(xscale="log", yscale="log", xlabel=label)
            axes.set_title(title)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        row[0].set_ylabel("best validation loss")
        row[0].legend()


def lines(axes: Axes, seeds: list[dict[str, Run]], x: Callable[[Run], np.ndarray]) -> None:
    for name, tint in figures.colour(list(seeds[0])).items():
        for i, runs in enumerate(seeds):
            label = name if i == 0 else None
            axes.step(x(runs[name]), runs[name].best, where="post", color=tint, label=label)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--studies", nargs="+", choices=TOLD + PEERS, default=TOLD + PEERS)
    parser.add_argument("--seeds", type=positive, default=1)
    parser.add_argument("--trials", type=positive, default=10, help="of the studies that are told")
    parser.add_argument("--peer-trials", type=positive, default=50, help="of the others")
    parser.add_argument("--steps", type=positive, default=3200, help="gradient steps of a trial")
    parser.add_argument("--fit", type=positive, default=6000, help="train steps of hyper-training")
    parser.add_argument("--train", type=positive, default=10_000, help="training images")
    parser.add_argument("--valid", type=positive, default=10_000, help="validation images")
    parser.add_argument(
        "--pool", type=positive, default=2, help="pixels averaged, along each side"
    )
    parser.add_argument("--kept", type=Path, default=KEPT, help="where finished studies are")
    parser.add_argument("--out", type=Path, default=OUT)


def compared(args: argparse.Namespace, name: str, seed: int) -> dict[str, Run]:
    """All studies of one data set and seed; those that were run before are not run again."""
    data = load(name, args.train, args.valid, args.pool)
    sizes = f"{name}-{args.train}-{args.valid}-{args.pool}-{args.steps}"
    folder = Folder(args.kept / sizes / f"seed-{seed}")
    runs = {}
    for one in args.studies:
        trials = args.trials if one in TOLD else args.peer_trials
        compute = partial(study, one, data, trials, args.fit, args.steps, seed)
        key = f"{one}-{trials}-{args.fit}" if one in TOLD else f"{one}-{trials}"
        runs[one] = folder.kept(key, compute)
    return runs


def main(args: argparse.Namespace) -> int:
    """Print a table per data set and seed, and write the figure."""
    samplers.quiet()
    torch.set_num_threads(THREADS)
    curves: dict[str, list[dict[str, Run]]] = {}
    for name in args.sets:
        for seed in range(args.seeds):
            runs = compared(args, name, seed)
            print(f"\n{name}, seed {seed}, {args.steps} steps per trial")
            print(
                "sampler    trials valid loss test loss      steps  seconds   steps/tpe's   "
                "steps/gp's"
            )
            target = {one: runs[one].best[-1] for one in ("tpe", "gp") if one in runs}
            for one in runs:
                describe(one, runs, target)
            curves.setdefault(name, []).append(runs)
        means(name, curves[name])
    print("\nsteps/x's: gradient steps until the lowest loss of x, relative to all that x took")
    size = (9.0, 3.2 * len(curves))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(figures.svg(partial(draw, curves), size, len(curves), 2), encoding="utf-8")
    print(f"figure: {args.out}")
    return 0
