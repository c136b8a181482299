"""Figures of a comparison, each as the text of an SVG element."""

import io
import re
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import statistics
from benchmarks.results import Comparison


COLOURS = {
    "hypernet": "#d81b60",
    "gp": "#1e8e5a",
    "tpe": "#1f6fd6",
    "random": "#8a8f98",
    "tpe-univariate": "#7cb4f5",
    "cmaes": "#e08e0b",
    "qmc": "#b8bcc4",
    "auto": "#7b4fd0",
    "hebo": "#0aa5b5",
}
SPARE = ["#5d4037", "#c2a300", "#00796b", "#ad1457", "#455a64"]
NO_METADATA = dict.fromkeys(["Creator", "Date", "Format", "Type"])
COSTS = {0.1: "0.1 s", 10.0: "10 s", 600.0: "10 min"}  # seconds per evaluation
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a6",
    "axes.labelcolor": "#3c4043",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "#e8eaed",
    "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
}


def colour(samplers: list[str]) -> dict[str, str]:
    """Sampler name -> colour, the same on every page for those that we know."""
    spare = iter(SPARE * len(samplers))
    return {name: COLOURS.get(name) or next(spare) for name in samplers}


def svg(
    draw: Callable[[np.ndarray], None], size: tuple[float, float], rows: int = 1, columns: int = 1
) -> str:
    """The SVG element of what `draw` puts on an array of axes (rows, columns); size in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(rows, columns, squeeze=False))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=NO_METADATA)
    element = text.getvalue()[text.getvalue().index("<svg") :]
    element = re.sub(r' d="[^"]+"', lambda path: shorter(path[0]), element)
    element = re.sub(r"\n\s+", "\n", element)  # indentation
    return re.sub(r'(width|height)="[^"]+pt" ', "", element, count=2)  # the page decides the width


def shorter(path: str) -> str:
    """A path to a tenth of a point, without the space between commands: the rest is only bytes."""
    path = re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", path)
    return re.sub(r"\s*\n?([A-Za-z]) ", r"\1", path)


def lines(
    axes: Axes, comparison: Comparison, values: np.ndarray, x: np.ndarray | None = None
) -> None:
    """One line per sampler; `values` (S, T) against trials or `x` (T,)."""
    where = np.arange(1, values.shape[1] + 1) if x is None else x
    for (name, tint), row in zip(colour(comparison.samplers).items(), values, strict=True):
        width = 2.4 if name == "hypernet" else 1.6
        axes.plot(where, row, color=tint, label=name, linewidth=width, zorder=3)
    axes.set_xlim(where[0], where[-1])


def regret_curves(comparison: Comparison) -> str:
    """Geometric-mean regret against trials, with 90 % bands over problems."""
    low, high = statistics.band(comparison.logs)
    trials = np.arange(1, comparison.trials + 1)

    def draw(grid: np.ndarray) -> None:
        axes = grid[0, 0]
        lines(axes, comparison, np.exp(comparison.logs.mean(axis=1)))
        for tint, bottom, top in zip(colour(comparison.samplers).values(), low, high, strict=True):
            axes.fill_between(trials, bottom, top, color=tint, alpha=0.12, linewidth=0)
        axes.set(yscale="log", xlabel="trials", ylabel="normalised regret")
        axes.set_title("Geometric-mean regret, 90 % band over problems")
        axes.legend(ncols=2)

    return svg(draw, (6.6, 4.4))


def ranks_and_wins(comparison: Comparison) -> str:
    """Mean rank and share of problems won, against trials."""

    def draw(grid: np.ndarray) -> None:
        upper, lower = grid[:, 0]
        lines(upper, comparison, statistics.mean_rank(comparison.regret))
        upper.invert_yaxis()
        upper.set_title("Mean rank (1 is best)")
        lines(lower, comparison, 100 * statistics.share_won(comparison.logs))
        lower.set(xlabel="trials", ylim=(0, None))
        lower.set_title("Problems won, %")

    return svg(draw, (4.6, 4.4), rows=2)


def suggestion_time(comparison: Comparison) -> str:
    """Median seconds per suggestion against trials."""

    def draw(grid: np.ndarray) -> None:
        axes = grid[0, 0]
        lines(axes, comparison, 1e3 * np.nanmedian(comparison.seconds, axis=1))
        axes.set(yscale="log", xlabel="trials", ylabel="milliseconds")
        axes.set_title("Median time of a suggestion")

    return svg(draw, (4.6, 3.4))


def wall_clock(comparison: Comparison) -> str:
    """Geometric-mean regret against wall-clock, one panel per cost of an evaluation."""

    def panel(axes: Axes, cost: float, label: str) -> None:
        done = np.cumsum(np.nan_to_num(comparison.seconds) + cost, axis=2)
        clock = np.geomspace(done[..., 0].max(), done[..., -1].max(), 200)
        values = [
            np.exp(statistics.log_floored(statistics.regret_at(r, s, cost, clock)).mean(axis=0))
            for r, s in zip(comparison.regret, comparison.seconds, strict=True)
        ]
        hours = clock[-1] > 3600
        lines(axes, comparison, np.array(values), clock / (3600 if hours else 1))
        axes.set(xscale="log", yscale="log", xlabel="hours" if hours else "seconds")
        axes.set_title(f"An evaluation costs {label}")

    def draw(grid: np.ndarray) -> None:
        for axes, (cost, label) in zip(grid[0], COSTS.items(), strict=True):
            panel(axes, cost, label)
        grid[0, 0].set_ylabel("normalised regret")

    return svg(draw, (11.4, 3.4), columns=len(COSTS))


def small_multiples(comparison: Comparison) -> str:
    """One small panel per problem."""
    columns = 4
    rows = -(-len(comparison.problems) // columns)

    def draw(grid: np.ndarray) -> None:
        for axes in grid.flat[len(comparison.problems) :]:
            axes.set_axis_off()
        for q, name in enumerate(comparison.problems):
            axes = grid.flat[q]
            lines(axes, comparison, np.exp(comparison.logs[:, q]))
            axes.set(yscale="log", ylim=(0.8 * statistics.FLOOR, 2))
            axes.minorticks_off()
            axes.set_title(name, fontsize=9)

    return svg(draw, (11.4, 2.1 * rows), rows, columns)
