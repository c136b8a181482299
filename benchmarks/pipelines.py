"""Conditional search spaces: what exists depends on the kernel, solver, model or features."""

import optuna
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectPercentile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from benchmarks import estimators
from benchmarks.estimators import SCALERS
from benchmarks.estimators import Space
from benchmarks.problem import Params
from benchmarks.problem import Prefixed


MODELS = {
    "nystroem": estimators.NYSTROEM,
    "forest": estimators.FOREST,
    "boosting": estimators.BOOSTING,
    "neighbors": estimators.NEIGHBORS,
    "sgd": estimators.SGD,
}


def suggest_kernel(trial: optuna.Trial) -> Params:
    """Conditional: `gamma`, `degree` and `coef0` exist for some kernels only."""
    params = {
        "scaler": trial.suggest_categorical("scaler", list(SCALERS)),
        "kernel": trial.suggest_categorical("kernel", ["linear", "rbf", "poly", "sigmoid"]),
        "C": trial.suggest_float("C", 1e-3, 1e3, log=True),
    }
    if params["kernel"] != "linear":
        params["gamma"] = trial.suggest_float("gamma", 1e-4, 1e1, log=True)
    if params["kernel"] == "poly":
        params["degree"] = trial.suggest_int("degree", 2, 5)
    if params["kernel"] in ("poly", "sigmoid"):
        params["coef0"] = trial.suggest_float("coef0", -1.0, 1.0)
    return params


def build_kernel(params: Params) -> BaseEstimator:
    options = {name: value for name, value in params.items() if name != "scaler"}
    return make_pipeline(SCALERS[params["scaler"]](), SVC(max_iter=20_000, **options))


def suggest_network(trial: optuna.Trial) -> Params:
    """Conditional: a width for each layer that exists, and the options of the chosen solver."""
    layers = trial.suggest_int("layers", 1, 3)
    widths = [trial.suggest_int(f"width_{i}", 4, 64, log=True) for i in range(layers)]
    params: Params = {
        "hidden_layer_sizes": widths,
        "activation": trial.suggest_categorical("activation", ["relu", "tanh"]),
        "alpha": trial.suggest_float("alpha", 1e-6, 1e1, log=True),
        "batch_size": trial.suggest_int("batch_size", 16, 256, log=True),
        "solver": trial.suggest_categorical("solver", ["adam", "sgd"]),
    }
    rate = "learning_rate_init"
    if params["solver"] == "adam":
        params[rate] = trial.suggest_float("adam_learning_rate", 1e-5, 1e-1, log=True)
    else:
        params[rate] = trial.suggest_float("sgd_learning_rate", 1e-4, 1.0, log=True)
        params["momentum"] = trial.suggest_float("momentum", 0.0, 0.99)
    return params


def suggest_model(trial: optuna.Trial) -> Params:
    """Conditional: which model, then that model's own parameters."""
    model = trial.suggest_categorical("model", list(MODELS))
    return {"model": model, **MODELS[model][0](Prefixed(trial, model))}


def build_model(params: Params) -> BaseEstimator:
    options = {name: value for name, value in params.items() if name != "model"}
    return MODELS[params["model"]][1](options)


def suggest_features(trial: optuna.Trial) -> Params:
    """Conditional: how many features are kept, and by what, if not all of them."""
    params = {
        "features": trial.suggest_categorical("features", ["all", "components", "best"]),
        "C": trial.suggest_float("C", 1e-4, 1e3, log=True),
        "class_weight": trial.suggest_categorical("class_weight", [None, "balanced"]),
    }
    if params["features"] == "components":
        params["variance"] = trial.suggest_float("variance", 0.05, 0.99)
    if params["features"] == "best":
        params["percentile"] = trial.suggest_float("percentile", 1.0, 100.0, log=True)
    return params


def build_features(params: Params) -> BaseEstimator:
    model = LogisticRegression(C=params["C"], class_weight=params["class_weight"], max_iter=60)
    before = {
        "all": lambda: [],
        "components": lambda: [PCA(params["variance"], svd_solver="full")],
        "best": lambda: [SelectPercentile(percentile=params["percentile"])],
    }
    return estimators.standardized(model, *before[params["features"]]())


KERNEL: Space = (suggest_kernel, build_kernel)
NETWORK: Space = (suggest_network, estimators.build_mlp)
FEATURES: Space = (suggest_features, build_features)
MODEL: Space = (suggest_model, build_model)
