"""The schedule of a run as a plot of its study, where optuna-dashboard can show it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from optuna_hypernet.bilevel.reports import Trial
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.coordinates import Coordinates


def save_plot(trial: Trial, coordinates: Coordinates, path: Sequence[Point]) -> None:
    """Saves a plot of the schedule into the trial's study, named after the trial.

    Nothing happens where optuna-dashboard or plotly is missing, or the trial has no study. A plot
    that cannot be saved is warned of: the run that it shows has taken its time already.
    """
    study = getattr(trial, "study", None)
    if study is None or not all(map(importlib.util.find_spec, ("optuna_dashboard", "plotly"))):
        return
    import optuna_dashboard

    title, name = f"Schedule of trial {trial.number}", f"schedule-{trial.number}"
    try:
        figure = _figure(coordinates, path).update_layout(title=title)
        optuna_dashboard.save_plotly_graph_object(study, figure, graph_object_id=name)
    except Exception as error:  # of a storage, of another version of the dashboard
        warnings.warn(
            f"The plot of trial {trial.number}'s schedule was not saved: {error!r}. The schedule "
            "itself is in the trial's user attributes.",
            stacklevel=3,
        )


def _figure(coordinates: Coordinates, path: Sequence[Point]) -> Any:
    """A row per hyperparameter over train steps; of a tensor its lowest, median and highest."""
    from plotly import graph_objects
    from plotly import subplots

    figure = subplots.make_subplots(len(coordinates.names), 1, shared_xaxes=True)
    steps = [point.steps for point in path]
    for row, name in enumerate(coordinates.names, 1):
        values = np.array([point.params[name] for point in path]).reshape(len(path), -1)
        lines = values.T if values.shape[1] == 1 else np.quantile(values, (0, 0.5, 1), axis=1)
        for line in lines:
            figure.add_trace(graph_objects.Scatter(x=steps, y=line.tolist()), row, 1)
        scale = "log" if coordinates.is_log(name) else "linear"
        figure.update_yaxes(title=name, type=scale, row=row)
    figure.update_xaxes(title="train steps", row=len(coordinates.names))
    return figure.update_layout(template=None, showlegend=False)
