"""Samplers by name, each built from a seed alone, with its own defaults."""

import importlib
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from benchmarks import MissingError
from benchmarks import UsageError


Factory = Callable[..., BaseSampler]  # of a seed, and of source studies if it learns from them
LEARN_FROM_SOURCES = {"hypernet"}


def named(path: str, seed: int, **options: Any) -> BaseSampler:
    """The sampler `package.module:Class`, called with `seed`."""
    module, _, attribute = path.partition(":")
    sampler: BaseSampler = getattr(importlib.import_module(module), attribute)(
        seed=seed, **options
    )
    return sampler


def hub(package: str, attribute: str, seed: int) -> BaseSampler:
    """A sampler of the OptunaHub registry, which is downloaded when first used."""
    optunahub = importlib.import_module("optunahub")
    sampler: BaseSampler = getattr(optunahub.load_module(package), attribute)(seed=seed)
    return sampler


def absent(reason: str, seed: int) -> BaseSampler:
    """A peer that nobody has wrapped for Optuna so that a seed is enough to build it."""
    raise MissingError(f"{reason}; give an adapter as package.module:Class")


PEERS: dict[str, Factory] = {
    "hypernet": partial(named, "optuna_hypernet:HypernetSampler"),
    "tpe": partial(named, "optuna.samplers:TPESampler"),
    "tpe-univariate": partial(named, "optuna.samplers:TPESampler", multivariate=False),
    "gp": partial(named, "optuna.samplers:GPSampler"),
    "cmaes": partial(named, "optuna.samplers:CmaEsSampler"),
    "random": partial(named, "optuna.samplers:RandomSampler"),
    "qmc": partial(named, "optuna.samplers:QMCSampler"),
    "nsga2": partial(named, "optuna.samplers:NSGAIISampler"),  # several objectives, too
    "hypernet-alone": partial(named, "optuna_hypernet:HypernetSampler"),  # not shown any sources
    "auto": partial(hub, "samplers/auto_sampler", "AutoSampler"),
    "hebo": partial(hub, "samplers/hebo", "HEBOSampler"),
    "smac": partial(absent, "OptunaHub's sampler needs the search space in advance"),
    "ax": partial(absent, "OptunaHub has no sampler for it"),
}


def factory(name: str) -> Factory:
    """What builds the sampler `name`, a peer or `package.module:Class`."""
    if ":" in name:
        return partial(named, name)
    if name not in PEERS:
        known = ", ".join(PEERS)
        raise UsageError(f"unknown sampler {name!r}; there are: {known}, or package.module:Class")
    return PEERS[name]


def built(name: str, seed: int, sources: list[optuna.Study]) -> BaseSampler:
    """The sampler `name`, which is shown earlier studies if it can learn from them."""
    shown = {"source_studies": sources} if sources and name in LEARN_FROM_SOURCES else {}
    return factory(name)(seed, **shown)


def available(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Split `names` into those that can be built here and the reasons why the others cannot."""
    usable, skipped = [], {}
    for name in names:
        make = factory(name)
        try:
            make(0)
            if name == "cmaes":
                importlib.import_module("cmaes")  # Optuna imports it only when it first suggests
            usable.append(name)
        except Exception as error:  # whatever a third party raises: the peer cannot run
            skipped[name] = (str(error) or type(error).__name__).splitlines()[0]
    return usable, skipped


def usable(names: str) -> list[str]:
    """Those of comma-separated `names` that can be built here; the others are told of.

    Raises:
        UsageError: If there is none of a name, or none that can be built.
    """
    found, skipped = available(names.replace(" ", "").split(","))
    for name, reason in skipped.items():
        print(f"skipped sampler {name}: {reason}", file=sys.stderr)
    if not found:
        raise UsageError(f"no sampler of {names} can run here; see the reasons above")
    return found


def quiet() -> None:
    """Silence Optuna's log and its notes on experimental classes in this process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
