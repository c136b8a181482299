"""Search spaces over boosting libraries, as Optuna's own examples have them, with step sizes.

LightGBM's is that of its example, XGBoost's the one of its trees; `BOOSTER` is the whole of that
example: which booster, and then its own parameters.
"""

import importlib
from functools import partial
from types import ModuleType

import optuna
from sklearn.base import BaseEstimator

from benchmarks import MissingError
from benchmarks.estimators import Space
from benchmarks.problem import Params


def suggest_lightgbm(trial: optuna.Trial) -> Params:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 0.5, log=True),
        "n_estimators": trial.suggest_int("n_estimators", 10, 100, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 2, 256),
        "min_child_samples": trial.suggest_int("min_child_samples", 5, 100),
        "reg_alpha": trial.suggest_float("reg_alpha", 1e-8, 1e1, log=True),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-8, 1e1, log=True),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
        "subsample": trial.suggest_float("subsample", 0.4, 1.0),
        "subsample_freq": trial.suggest_int("subsample_freq", 1, 7),
    }


def build_lightgbm(kind: str, params: Params) -> BaseEstimator:
    fixed = {"n_jobs": 1, "random_state": 0, "deterministic": True, "verbosity": -1}
    return getattr(imported("lightgbm"), f"LGBM{kind}")(**fixed, **params)


def suggest_trees(trial: optuna.Trial) -> Params:
    return {
        "learning_rate": trial.suggest_float("eta", 1e-3, 1.0, log=True),
        "max_depth": trial.suggest_int("max_depth", 1, 9),
        "min_child_weight": trial.suggest_int("min_child_weight", 2, 10),
        "gamma": trial.suggest_float("gamma", 1e-8, 1.0, log=True),
        "grow_policy": trial.suggest_categorical("grow_policy", ["depthwise", "lossguide"]),
    }


def suggest_xgboost(trial: optuna.Trial) -> Params:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 10, 100, log=True),
        "reg_lambda": trial.suggest_float("lambda", 1e-8, 1.0, log=True),
        "reg_alpha": trial.suggest_float("alpha", 1e-8, 1.0, log=True),
        "subsample": trial.suggest_float("subsample", 0.2, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.2, 1.0),
        **suggest_trees(trial),
    }


def suggest_booster(trial: optuna.Trial) -> Params:
    """Conditional: trees, trees of which some are dropped, or a linear model."""
    params: Params = {
        "booster": trial.suggest_categorical("booster", ["gbtree", "gblinear", "dart"]),
        "reg_lambda": trial.suggest_float("lambda", 1e-8, 1.0, log=True),
        "reg_alpha": trial.suggest_float("alpha", 1e-8, 1.0, log=True),
    }
    if params["booster"] != "gblinear":
        params["subsample"] = trial.suggest_float("subsample", 0.2, 1.0)
        params["colsample_bytree"] = trial.suggest_float("colsample_bytree", 0.2, 1.0)
        params |= suggest_trees(trial)
    if params["booster"] == "dart":
        params["sample_type"] = trial.suggest_categorical("sample_type", ["uniform", "weighted"])
        params["normalize_type"] = trial.suggest_categorical("normalize_type", ["tree", "forest"])
        params["rate_drop"] = trial.suggest_float("rate_drop", 1e-8, 1.0, log=True)
        params["skip_drop"] = trial.suggest_float("skip_drop", 1e-8, 1.0, log=True)
    return params


def build_xgboost(kind: str, params: Params) -> BaseEstimator:
    fixed = {"n_jobs": 1, "random_state": 0, "verbosity": 0, "n_estimators": 30}
    return getattr(imported("xgboost"), f"XGB{kind}")(**fixed | params)


def imported(library: str) -> ModuleType:
    """The module; which packages to install if it is missing."""
    try:
        return importlib.import_module(library)
    except ImportError as cause:
        raise MissingError(
            f"{library} is missing; run: pip install lightgbm xgboost-cpu"
        ) from cause


LIGHTGBM: Space = (suggest_lightgbm, partial(build_lightgbm, "Classifier"))
LIGHTGBM_REGRESSION: Space = (suggest_lightgbm, partial(build_lightgbm, "Regressor"))
XGBOOST: Space = (suggest_xgboost, partial(build_xgboost, "Classifier"))
XGBOOST_REGRESSION: Space = (suggest_xgboost, partial(build_xgboost, "Regressor"))
BOOSTER: Space = (suggest_booster, partial(build_xgboost, "Classifier"))
