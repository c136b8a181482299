"""`python -m benchmarks.selftuning_cost`: what a train step of self-tuning costs.

Time: two train steps and a valid one of the structured response, two of Delta-STN, and two plain
steps, turn about in the same loop, so that whatever slows the machine slows all; medians. The
plain step is that of `HyperTraining.train`: the same network, none of whose layers responds.
Beside it stands a loop written in bare torch, whose dropout has one rate for all examples.

Memory: the peak of a fresh process, above what it held before the network was made. It holds
weights, Adam's moments, and what a step needs. It is read off Linux's /proc, and only there.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor
from torch import nn

from benchmarks import THREADS
from benchmarks.selftuning.problem import train_loss
from benchmarks.selftuning.problem import valid_loss
from benchmarks.timing import turn_about
from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.optimizers import adam
from optuna_hypernet.bilevel.optimizers import hyper_adam
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.response.delta import Delta
from optuna_hypernet.response.structured import EVERYTHING
from optuna_hypernet.response.structured import Structured


BATCH = 128
CYCLE = 2  # train steps to a valid step
SCALE, ENTROPY = 0.5, 1e-2
TIME_BAR, PARAMETER_BAR = 2.2, 2.1
CPU = torch.device("cpu")
PROC = Path("/proc/self")  # of Linux

Batch = tuple[Tensor, Tensor]
KINDS: dict[str, tuple[type[Structured], Sequence[str]]] = {  # and elementary modules
    "plain": (Structured, EVERYTHING),
    "self-tuned": (Structured, ()),
    "delta": (Delta, ()),
}


def perceptron(width: int) -> nn.Sequential:
    """Two hidden layers, with dropout before every layer."""
    first = [nn.Dropout(), nn.Linear(784, width), nn.ReLU()]
    second = [nn.Dropout(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *first, *second, nn.Dropout(), nn.Linear(width, 10))


def convolutional(width: int) -> nn.Sequential:
    """Two convolutions and two linear layers, with dropout before all but the first."""
    first = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d()]
    second = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    third = [nn.Dropout2d(), nn.Flatten(), nn.Linear(128 * width, 8 * width), nn.ReLU()]
    return nn.Sequential(*first, *second, *third, nn.Dropout(), nn.Linear(8 * width, 10))


@dataclass(frozen=True)
class Net:
    """A network, and the images it is for."""

    build: Callable[[int], nn.Sequential]
    width: int
    shape: Sequence[int]

    def images(self, size: int = BATCH) -> Batch:
        """One batch of noise, and classes."""
        draws = torch.Generator().manual_seed(0)
        x = torch.rand(size, *self.shape, generator=draws)
        return x, torch.randint(10, (size,), generator=draws)


NETS = {
    "784-300-300-10": Net(perceptron, 300, (1, 28, 28)),
    "conv 16-32, fc 128-10": Net(convolutional, 16, (3, 32, 32)),
}


def loop(model: nn.Module, kind: str, batch: Batch) -> tuple[Bilevel, Structured]:
    """The bilevel loop of a network, and its response; all dropout rates are tuned."""
    dropouts = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    space = {f"{name}.p": FloatDistribution(0.0, 0.9) for name in dropouts}
    coordinates = Coordinates(space, torch.float32)
    losses, (made, elementary) = (train_loss, valid_loss), KINDS[kind]
    response = made(model, *losses, coordinates, CPU, 0, elementary)
    train_data, valid_data = (Batches(name, [batch], CPU, 0) for name in ("train", "valid"))
    data = train_data, valid_data
    z = torch.zeros(coordinates.D)
    return Bilevel(response, coordinates, *data, adam, hyper_adam, z, 0), response


def train(bilevel: Bilevel) -> None:
    """Train steps of a cycle; where nothing responds the spread of λ means nothing."""
    for _ in range(CYCLE):
        bilevel.train_step(Around(SCALE), None)


def bare(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """Train steps of a cycle in bare torch."""
    optimizer = adam(model.parameters())

    def steps() -> None:
        for _ in range(CYCLE):
            optimizer.zero_grad()
            valid_loss(model, batch).backward()
            optimizer.step()

    return steps


def seconds(net: Net, cycles: int) -> dict[str, float]:
    """Median seconds of a cycle's parts."""
    batch = net.images()
    plain, tuned, delta = (loop(net.build(net.width), kind, batch)[0] for kind in KINDS)
    parts: dict[str, Callable[[], Any]] = {
        "bare": bare(net.build(net.width), batch),
        "plain": lambda: train(plain),
        "self-tuned": lambda: train(tuned),
        "delta": lambda: train(delta),
        "valid": lambda: tuned.adaptive_valid_step(ENTROPY),
    }
    return turn_about(parts, cycles)


def parameters(net: Net, kind: str) -> int:
    """How many numbers are trained."""
    response = loop(net.build(net.width), kind, net.images(2))[1]
    return sum(parameter.numel() for group in response.groups for parameter in group)


def peak(name: str, kind: str) -> None:
    """Print the MiB that this process needs for some cycles of a net."""
    net = NETS[name]
    use(net.build(1), kind, net.images(2))  # loads the code
    PROC.joinpath("clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before = held()
    use(net.build(net.width), kind, net.images())
    print(held() - before)


def use(model: nn.Module, kind: str, batch: Batch) -> None:
    """Some cycles."""
    bilevel, _ = loop(model, kind, batch)
    for _ in range(5):
        train(bilevel)
        if kind == "self-tuned":
            bilevel.adaptive_valid_step(ENTROPY)


def held() -> float:
    """The most MiB that this process had in memory since the peak was forgotten."""
    status = PROC.joinpath("status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory(name: str, kind: str) -> float:
    """The number of `peak`, in a process of its own."""
    code = f"from benchmarks.selftuning_cost import peak; peak({name!r}, {kind!r})"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(what: str, plain: float, tuned: float, bar: float | None = None) -> None:
    """Both numbers and their ratio, against a bar if there is one."""
    verdict = "" if bar is None else f"   {'met' if tuned <= bar * plain else 'missed'}: ≤ {bar}"
    print(f"  {what:28} {plain:12,.2f} {tuned:12,.2f} {tuned / plain:8.2f}{verdict}", flush=True)


def measure(name: str, cycles: int) -> None:
    """All about one net, printed."""
    net, kinds = NETS[name], ("plain", "self-tuned")
    spent = {part: 1e3 * value for part, value in seconds(net, cycles).items()}
    plain, tuned = spent["plain"] / CYCLE, spent["self-tuned"] / CYCLE
    print(f"\n{name:30} {'plain':>12} {'self-tuned':>12} {'ratio':>8}")
    row("train step, ms", plain, tuned, TIME_BAR)
    row("the same, plain in bare torch", spent["bare"] / CYCLE, tuned)
    row("the same of Delta-STN", plain, spent["delta"] / CYCLE)
    row("2 train steps, a valid step", spent["plain"], spent["self-tuned"] + spent["valid"])
    row("trained numbers", *(parameters(net, kind) for kind in kinds), PARAMETER_BAR)
    if PROC.exists():
        row("peak memory, MiB", *(memory(name, kind) for kind in kinds))


def main() -> int:
    """Print what is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selftuning_cost")
    parser.add_argument("--cycles", type=int, default=100, help="of two train steps each")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"batches of {BATCH}, Adam, {THREADS} thread; medians of {args.cycles} cycles")
    for name in NETS:
        measure(name, args.cycles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
