"""`report`: the table on the terminal and one self-contained HTML page."""

import argparse
import sys
from datetime import datetime
from datetime import timezone
from html import escape
from pathlib import Path

import numpy as np

from benchmarks import UsageError
from benchmarks import figures
from benchmarks import pick
from benchmarks import results
from benchmarks import runs
from benchmarks import statistics
from benchmarks import suites
from benchmarks.results import Comparison
from benchmarks.runs import Label


CHECKPOINTS = (10, 20, 30, 40, 60, 100)
OURS = "hypernet"
REFERENCES = ("tpe", "gp")  # the samplers to be ahead of
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#202124;max-width:1180px;margin:2.5em auto;
padding:0 1.5em} h1{font-size:1.7em;margin-bottom:.1em}
h2{margin-top:2.2em;border-top:1px solid #e8eaed;padding-top:1em}
p{color:#3c4043} .row{display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start}
.wide{flex:3 1 560px} .narrow{flex:2 1 380px;max-width:480px}
svg{width:100%;height:auto;display:block}
table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}
th,td{padding:.25em .8em;white-space:nowrap;text-align:right;border-bottom:1px solid #e8eaed}
th:first-child,td:first-child{text-align:left} td b{color:#0b6b3a}
summary{cursor:pointer;margin:1em 0}
"""
Rows = list[list[str]]


def checkpoints(comparison: Comparison) -> list[int]:
    """Trials at which numbers are told: the usual ones that were reached, and the last."""
    return sorted({n for n in CHECKPOINTS if n <= comparison.trials} | {comparison.trials})


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}".rstrip(".") if value < 1e4 else f"{value:.2g}"


def regret_table(comparison: Comparison) -> Rows:
    """Geometric mean of the floored regret, the arithmetic mean of the regret in brackets."""
    geometric = np.exp(comparison.logs.mean(axis=1))
    by_problem = statistics.by_problem(comparison.regret, comparison.problem_of)
    arithmetic = by_problem.mean(axis=1)
    at = checkpoints(comparison)
    return [["regret", *map(str, at)]] + [
        [name, *(f"{number(geometric[s, n - 1])} ({number(arithmetic[s, n - 1])})" for n in at)]
        for s, name in enumerate(comparison.samplers)
    ]


def ratio_row(comparison: Comparison, ours: str) -> list[str]:
    """Our geometric mean over that of the better of the references that were run."""
    others = [comparison.samplers.index(n) for n in REFERENCES if n in comparison.samplers]
    if not others or ours in REFERENCES:
        return []
    geometric = np.exp(comparison.logs.mean(axis=1))
    mine = geometric[comparison.samplers.index(ours)]
    ratio = mine / geometric[others].min(axis=0)
    label = f"{ours} / better of {', '.join(comparison.samplers[s] for s in others)}"
    return [label, *(f"{ratio[n - 1]:.2f}" for n in checkpoints(comparison))]


def rank_table(comparison: Comparison) -> Rows:
    """Mean rank among all samplers."""
    ranks = statistics.mean_rank(comparison.regret)
    at = checkpoints(comparison)
    return [["mean rank", *map(str, at)]] + [
        [name, *(f"{ranks[s, n - 1]:.2f}" for n in at)]
        for s, name in enumerate(comparison.samplers)
    ]


def p_table(comparison: Comparison, ours: str) -> Rows:
    """Wilcoxon-Holm p of `ours` against each other sampler."""
    logs, mine = comparison.logs, comparison.samplers.index(ours)
    others = [s for s in range(len(comparison.samplers)) if s != mine]
    at = checkpoints(comparison)
    p = [statistics.wilcoxon_holm(logs[mine, :, n - 1], logs[others, :, n - 1]) for n in at]
    return [[f"p, {ours} against", *map(str, at)]] + [
        [comparison.samplers[s], *(f"{column[k]:.2g}" for column in p)]
        for k, s in enumerate(others)
    ]


def summary_table(comparison: Comparison) -> Rows:
    """Share of problems won at the end, failed evaluations, suggestion time."""
    won = statistics.share_won(comparison.logs)[:, -1]
    failed = comparison.failed.sum(axis=(1, 2))
    total = comparison.failed[0].size
    head = ["problems won", "failed", "ms per suggestion: median (mean)"]
    return [[f"after {comparison.trials} trials", *head]] + [
        [name, f"{won[s]:.0%}", f"{failed[s]} of {total}", milliseconds(comparison.seconds[s])]
        for s, name in enumerate(comparison.samplers)
    ]


def milliseconds(seconds: np.ndarray) -> str:
    """Median and mean of suggestions: now and then one takes longer than the others."""
    spent = 1e3 * seconds[np.isfinite(seconds)]
    return f"{number(np.median(spent))} ({number(spent.mean())})" if len(spent) else "none"


def problem_table(comparison: Comparison) -> Rows:
    """Geometric-mean regret of every problem at the end."""
    values = np.exp(comparison.logs[:, :, -1])
    return [[f"after {comparison.trials} trials", *comparison.samplers]] + [
        [name, *(number(value) for value in values[:, q])]
        for q, name in enumerate(comparison.problems)
    ]


def tables(comparison: Comparison, ours: str) -> list[Rows]:
    """All tables over problems."""
    regrets, ranks = regret_table(comparison), rank_table(comparison)
    if ours not in comparison.samplers or len(comparison.samplers) == 1:
        return [regrets, ranks, summary_table(comparison)]
    ratio = ratio_row(comparison, ours)
    return [
        [*regrets, ratio] if ratio else regrets,
        ranks,
        p_table(comparison, ours),
        summary_table(comparison),
    ]


def heading(comparison: Comparison) -> str:
    """What is compared, in one sentence."""
    pairs = len(comparison.problem_of)
    partial = comparison.pairs_started - pairs
    note = f" ({partial} more are not complete for every sampler)" if partial else ""
    return (
        f"{comparison.suite}: {len(comparison.problems)} problems, "
        f"{pairs} pairs of problem and seed{note}, {comparison.trials} trials"
    )


def origin(comparison: Comparison) -> str:
    """What the studies ran with, in one sentence."""
    return ", ".join(
        f"{package} {' and '.join(found)}" for package, found in comparison.versions.items()
    )


def printed(comparison: Comparison, ours: str) -> str:
    """What the terminal shows of a suite."""
    shown = [*tables(comparison, ours), problem_table(comparison)]
    return "\n\n".join([heading(comparison), *map(as_text, shown), origin(comparison)])


def as_text(rows: Rows) -> str:
    """Columns aligned, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def as_html(rows: Rows, bold_lowest: bool = False) -> str:
    """A table; if asked, the lowest number of each row in bold."""

    def body(row: list[str]) -> str:
        lowest = min(map(float, row[1:])) if bold_lowest else None
        cells = [
            f"<b>{escape(cell)}</b>" if bold_lowest and float(cell) == lowest else escape(cell)
            for cell in row[1:]
        ]
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (escape(row[0]), *cells)) + "</tr>"

    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    return f"<table><tr>{head}</tr>{''.join(map(body, rows[1:]))}</table>"


def section(comparison: Comparison, ours: str) -> str:
    """One suite on the page."""
    regrets, *others = map(as_html, tables(comparison, ours))
    about = f"{heading(comparison)}. {origin(comparison)}."
    return f"""<h2>{escape(comparison.suite)}</h2><p>{escape(about)}</p>
<div class="row"><div class="wide">{figures.regret_curves(comparison)}</div>
<div class="narrow">{figures.ranks_and_wins(comparison)}</div></div>
{regrets}<div class="row"><div>{"".join(others)}</div>
<div class="narrow">{figures.suggestion_time(comparison)}</div></div>
<h3>Regret against wall-clock: suggestions and evaluations</h3>{figures.wall_clock(comparison)}
<h3>Every problem</h3>{figures.small_multiples(comparison)}
<details><summary>Geometric-mean regret of every problem</summary>
{as_html(problem_table(comparison), bold_lowest=True)}</details>"""


def page(comparisons: list[Comparison], ours: str) -> str:
    """The whole page, without anything to load from elsewhere."""
    sections = "\n".join(section(comparison, ours) for comparison in comparisons)
    day = datetime.now(timezone.utc).strftime("%d %B %Y")
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>Samplers compared</title><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><style>{STYLE}</style><h1>Samplers compared</h1>
<p>{day}. Normalised regret is (value of the incumbent − optimum) / (median of random
configurations − optimum): 0 is perfect, 1 the median of random configurations. Geometric means
count every regret as at least {statistics.FLOOR}; arithmetic means stand in brackets. Only pairs
of problem and seed that every sampler has finished are compared. Every sampler with its own
defaults, the same seeds, one thread.
</p>
{sections}</html>
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m benchmarks report`."""
    parser.add_argument(
        "--storage",
        action="append",
        help="or a file of --archive; may be repeated, a later one replaces studies of the same "
        "name (default: sqlite:///benchmarks.db)",
    )
    parser.add_argument("--suite", help="only this suite (default: all in the storage)")
    parser.add_argument("--problems", help="only these, names or patterns (default: all)")
    parser.add_argument("--samplers", help="only these, comma-separated (default: all)")
    parser.add_argument("--ours", help="the sampler that p values are about (default: hypernet)")
    parser.add_argument("--out", type=Path, help="write the HTML page to this file")
    parser.add_argument("--archive", type=npz, help="write all that was read to this .npz file")
    parser.add_argument("--plots", type=Path, help="write each suite's curves to this folder, SVG")


def chosen(labels: list[Label], args: argparse.Namespace) -> list[Label]:
    """Those of the suite, the samplers and the problems that were asked for.

    Raises:
        UsageError: If there is none of a name.
    """
    for field, text in (
        ("suite", args.suite),
        ("sampler", args.samplers),
        ("problem", args.problems),
    ):
        if text is None:
            continue
        there = list(dict.fromkeys(getattr(label, field) for label in labels))
        names = suites.matching(field, text, there)
        labels = [label for label in labels if getattr(label, field) in names]
    return labels


def main(args: argparse.Namespace) -> int:
    """Print the tables of every suite and, if asked, write the page."""
    urls = args.storage or ["sqlite:///benchmarks.db"]
    sources = [runs.source(url) for url in urls]
    there = [label for each in sources for label in each.labels]
    if not there:
        raise UsageError(f"no studies in {', '.join(urls)}; `python -m benchmarks run` makes them")
    wanted = chosen(there, args)
    ours = args.ours or OURS
    if args.ours:
        pick("sampler", ours, list(dict.fromkeys(label.sampler for label in wanted)))
    read = {run.label: run for each in sources for run in each.runs(set(wanted).__contains__)}
    comparisons = []
    for suite in dict.fromkeys(label.suite for label in wanted):
        of_suite = [run for run in read.values() if run.label.suite == suite]
        comparisons.append(results.compare(suite, of_suite))
        print(printed(comparisons[-1], ours), end="\n\n\n", flush=True)
    if args.out:
        write(args.out, page(comparisons, ours))
    if args.archive:
        args.archive.parent.mkdir(parents=True, exist_ok=True)
        runs.archive(list(read.values()), args.archive)
        print(f"studies written to {args.archive}", file=sys.stderr)
    if args.plots:
        for comparison in comparisons:
            write(args.plots / f"{comparison.suite}.svg", figures.regret_curves(comparison))
    return 0


def npz(text: str) -> Path:
    """A path as `--storage` will know it again."""
    if not text.endswith(runs.SUFFIX):
        raise argparse.ArgumentTypeError(f"{text} does not end in {runs.SUFFIX}")
    return Path(text)


def write(path: Path, text: str) -> None:
    """A file, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)
