"""A pipeline is tuned again, for new data, after it was tuned for older ones: in fewer trials.

python examples/earlier_studies.py

A machine that reads digits is tuned every month, twice so far, by Optuna's default sampler. What
these studies know is an input of the third one's surrogate, with a gate of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import TPESampler
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from optuna_hypernet import HypernetSampler


MONTH = 500  # digits


def of_month(month: int) -> Callable[[optuna.Trial], float]:
    """The objective: the error rate of cross-validation on that month's digits."""
    x, y = load_digits(return_X_y=True)
    x, y = x[month * MONTH : (month + 1) * MONTH], y[month * MONTH : (month + 1) * MONTH]

    def objective(trial: optuna.Trial) -> float:
        model = make_pipeline(
            StandardScaler(),
            PCA(trial.suggest_float("variance", 0.3, 0.99), svd_solver="full"),
            SVC(
                C=trial.suggest_float("C", 1e-3, 1e3, log=True),
                gamma=trial.suggest_float("gamma", 1e-5, 1e1, log=True),
                class_weight=trial.suggest_categorical("class_weight", [None, "balanced"]),
            ),
        )
        return 1 - float(cross_val_score(model, x, y, cv=3).mean())

    return objective


def tuned(month: int, sampler: BaseSampler, n_trials: int) -> optuna.Study:
    """A study of that month's digits."""
    study = optuna.create_study(sampler=sampler)
    study.optimize(of_month(month), n_trials=n_trials)
    return study


def main() -> None:
    """Tunes for the third month, with what is known of the first two and without."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    earlier = [tuned(month, TPESampler(seed=month), 30) for month in range(2)]
    samplers = {
        "TPE": TPESampler(seed=0),
        "without": HypernetSampler(seed=0),
        "with the earlier studies": HypernetSampler(seed=0, source_studies=earlier),
    }
    print("lowest error rate after       1, 3, 6 and 12 trials")
    for name, sampler in samplers.items():
        errors = [trial.value or 0.0 for trial in tuned(2, sampler, 12).trials]
        print(f"{name:28}", *(f"{min(errors[:n]):.3f}" for n in (1, 3, 6, 12)))


if __name__ == "__main__":
    main()
