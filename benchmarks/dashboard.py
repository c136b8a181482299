"""What optuna-dashboard shows beside the trials: a note on the problem and the regret plot."""

import importlib.util

import numpy as np
import optuna

from benchmarks.problem import Problem
from benchmarks.statistics import FLOOR


def installed() -> bool:
    """Whether notes and plots can be saved; the rest of the program does without."""
    return all(map(importlib.util.find_spec, ("optuna_dashboard", "plotly")))


def annotate(study: optuna.Study, problem: Problem, regret: np.ndarray) -> None:
    """Save a note and a plot of `regret` (T,) into the stored `study`."""
    import optuna_dashboard
    from plotly import graph_objects

    several = problem.objectives > 1
    worst = "a front that dominates nothing" if several else "the median of random configurations"
    optuna_dashboard.save_note(
        study,
        f"### {problem.name}\n\n{problem.about}\n\n"
        f"Sampler **{study.user_attrs['sampler']}**, seed {study.user_attrs['seed']}. "
        f"Normalised regret after {len(regret)} trials: **{regret[-1]:.4g}** "
        f"(0 is the optimum, 1 {worst}).",
    )
    figure = graph_objects.Figure(
        graph_objects.Scatter(
            x=np.arange(1, len(regret) + 1).tolist(),
            y=np.maximum(regret, FLOOR).tolist(),
            mode="lines",
            line_shape="hv",
        )
    )
    figure.update_layout(
        template=None,
        title=f"Normalised regret, floor {FLOOR:g}: {study.study_name}",
        xaxis_title="trial",
        yaxis_title="normalised regret",
        yaxis_type="log",
    )
    optuna_dashboard.save_plotly_graph_object(study, figure, graph_object_id="regret")
