"""Tunes gradient-boosted trees on real data: seven mixed hyperparameters, by cross-validation.

python examples/quickstart.py [--trials 40] [--out out/history.png]

Prints what was found beside the untuned score, and writes a plot of the study's history.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import KFold
from sklearn.model_selection import cross_val_score

from optuna_hypernet import HypernetSampler


def rmse(**params: Any) -> float:
    """Root mean squared error of predicted disease progression, by 5-fold cross-validation."""
    x, y = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(random_state=0, **params)
    folds = KFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(model, x, y, cv=folds, scoring="neg_root_mean_squared_error")
    return -float(scores.mean())


def objective(trial: optuna.Trial) -> float:
    return rmse(
        learning_rate=trial.suggest_float("learning_rate", 0.005, 0.5, log=True),
        n_estimators=trial.suggest_int("n_estimators", 20, 150, log=True),
        max_depth=trial.suggest_int("max_depth", 1, 8),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 1, 60, log=True),
        subsample=trial.suggest_float("subsample", 0.3, 1.0),
        max_features=trial.suggest_float("max_features", 0.1, 1.0),
        loss=trial.suggest_categorical("loss", ["squared_error", "absolute_error", "huber"]),
    )


def plot(study: optuna.Study, untuned: float, path: Path) -> None:
    """Draws every trial, the best so far and the untuned score."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    values = [trial.value for trial in study.trials if trial.value is not None]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(values, "o", color="#9db4c8", label="trials")
    axes.step(range(len(values)), np.minimum.accumulate(values), color="#c0392b", label="best")
    axes.axhline(untuned, color="#555555", linestyle=":", label="untuned")
    axes.set(xlabel="trial", ylabel="RMSE, 5-fold cross-validation", title="HypernetSampler")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("out", "history.png"))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    untuned = rmse()
    study = optuna.create_study(sampler=HypernetSampler(seed=0))
    study.optimize(objective, n_trials=arguments.trials, show_progress_bar=True)
    plot(study, untuned, arguments.out)
    print(f"untuned RMSE {untuned:.3f}, tuned RMSE {study.best_value:.3f} with")
    for name, value in study.best_params.items():
        print(f"  {name} = {value:.4g}" if isinstance(value, float) else f"  {name} = {value}")
    print(f"history plot: {arguments.out}")


if __name__ == "__main__":
    main()
