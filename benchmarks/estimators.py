"""Search spaces over scikit-learn estimators: what is suggested, and the estimator that it builds.

Ranges are those that practitioners use, wide enough that random configurations are poor.
"""

from collections.abc import Callable
from typing import Any

import optuna
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import ElasticNet
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge
from sklearn.linear_model import SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.preprocessing import PolynomialFeatures
from sklearn.preprocessing import QuantileTransformer
from sklearn.preprocessing import SplineTransformer
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from benchmarks.problem import Params


Space = tuple[Callable[[optuna.Trial], Params], Callable[[Params], BaseEstimator]]
SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler, "quantile": QuantileTransformer}


def standardized(estimator: BaseEstimator, *before: BaseEstimator) -> BaseEstimator:
    """Standardise the features, transform them by `before`, then fit."""
    return make_pipeline(StandardScaler(), *before, estimator)


def suggest_svm(trial: optuna.Trial) -> Params:
    return {
        "C": trial.suggest_float("C", 1e-2, 1e3, log=True),
        "gamma": trial.suggest_float("gamma", 1e-4, 1e1, log=True),
    }


def build_svm(params: Params) -> BaseEstimator:
    return standardized(SVC(**params))


def suggest_forest(trial: optuna.Trial) -> Params:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 4, 64, log=True),
        "max_depth": trial.suggest_int("max_depth", 1, 24),
        "max_features": trial.suggest_float("max_features", 0.05, 1.0),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 64, log=True),
        "max_samples": trial.suggest_float("max_samples", 0.1, 1.0),
        "criterion": trial.suggest_categorical("criterion", ["gini", "entropy"]),
    }


def build_forest(params: Params) -> BaseEstimator:
    return RandomForestClassifier(random_state=0, **params)


def suggest_extra_trees(trial: optuna.Trial) -> Params:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 8, 128, log=True),
        "max_features": trial.suggest_float("max_features", 0.05, 1.0),
        "min_samples_split": trial.suggest_int("min_samples_split", 2, 64, log=True),
        "ccp_alpha": trial.suggest_float("ccp_alpha", 1e-6, 1e-1, log=True),
        "bootstrap": trial.suggest_categorical("bootstrap", [False, True]),
    }


def build_extra_trees(params: Params) -> BaseEstimator:
    return ExtraTreesClassifier(random_state=0, **params)


def suggest_boosting(trial: optuna.Trial) -> Params:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
        "max_iter": trial.suggest_int("max_iter", 8, 96, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 3, 48, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 128, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-6, 1e2, log=True),
        "max_features": trial.suggest_float("max_features", 0.1, 1.0),
        "max_bins": trial.suggest_int("max_bins", 8, 255, log=True),
    }


def build_boosting(params: Params) -> BaseEstimator:
    return HistGradientBoostingClassifier(random_state=0, early_stopping=False, **params)


def suggest_mlp_adam(trial: optuna.Trial) -> Params:
    return {
        "hidden_layer_sizes": trial.suggest_int("hidden_layer_sizes", 4, 128, log=True),
        "alpha": trial.suggest_float("alpha", 1e-6, 1e1, log=True),
        "learning_rate_init": trial.suggest_float("learning_rate_init", 1e-5, 1e-1, log=True),
        "batch_size": trial.suggest_int("batch_size", 16, 256, log=True),
        "beta_1": 1.0 - trial.suggest_float("one_minus_beta_1", 1e-2, 0.5, log=True),
        "beta_2": 1.0 - trial.suggest_float("one_minus_beta_2", 1e-4, 1e-1, log=True),
        "activation": trial.suggest_categorical("activation", ["relu", "tanh", "logistic"]),
    }


def build_mlp(params: Params) -> BaseEstimator:
    return standardized(MLPClassifier(max_iter=12, random_state=0, **params))


def suggest_mlp_sgd(trial: optuna.Trial) -> Params:
    return {
        "solver": "sgd",
        "hidden_layer_sizes": trial.suggest_int("hidden_layer_sizes", 4, 96, log=True),
        "alpha": trial.suggest_float("alpha", 1e-6, 1e1, log=True),
        "learning_rate_init": trial.suggest_float("learning_rate_init", 1e-4, 1.0, log=True),
        "learning_rate": trial.suggest_categorical("learning_rate", ["constant", "invscaling"]),
        "momentum": trial.suggest_float("momentum", 0.0, 0.99),
        "batch_size": trial.suggest_int("batch_size", 16, 256, log=True),
    }


def suggest_elastic_net(trial: optuna.Trial) -> Params:
    return {
        "degree": trial.suggest_int("degree", 1, 2),
        "alpha": trial.suggest_float("alpha", 1e-4, 1e3, log=True),
        "l1_ratio": trial.suggest_float("l1_ratio", 0.0, 1.0),
    }


def build_elastic_net(params: Params) -> BaseEstimator:
    features = PolynomialFeatures(params["degree"], include_bias=False)
    model = ElasticNet(alpha=params["alpha"], l1_ratio=params["l1_ratio"], max_iter=300)
    return standardized(model, features, StandardScaler())


def suggest_kernel_ridge(trial: optuna.Trial) -> Params:
    return {
        "alpha": trial.suggest_float("alpha", 1e-6, 1e2, log=True),
        "gamma": trial.suggest_float("gamma", 1e-5, 1e1, log=True),
        "kernel": trial.suggest_categorical("kernel", ["rbf", "laplacian", "sigmoid"]),
    }


def build_kernel_ridge(params: Params) -> BaseEstimator:
    return standardized(KernelRidge(**params))


def suggest_neighbors(trial: optuna.Trial) -> Params:
    return {
        "scaler": trial.suggest_categorical("scaler", list(SCALERS)),
        "n_neighbors": trial.suggest_int("n_neighbors", 1, 100, log=True),
        "p": trial.suggest_float("p", 1.0, 5.0),
        "weights": trial.suggest_categorical("weights", ["uniform", "distance"]),
    }


def build_neighbors(params: Params) -> BaseEstimator:
    options = {name: value for name, value in params.items() if name != "scaler"}
    return make_pipeline(SCALERS[params["scaler"]](), KNeighborsClassifier(**options))


def suggest_sgd(trial: optuna.Trial) -> Params:
    return {
        "alpha": trial.suggest_float("alpha", 1e-7, 1e-1, log=True),
        "l1_ratio": trial.suggest_float("l1_ratio", 0.0, 1.0),
        "eta0": trial.suggest_float("eta0", 1e-4, 1e1, log=True),
        "power_t": trial.suggest_float("power_t", 0.0, 1.0),
        "max_iter": trial.suggest_int("max_iter", 1, 20),
        "average": trial.suggest_categorical("average", [False, True]),
    }


def build_sgd(params: Params) -> BaseEstimator:
    fixed: dict[str, Any] = {"loss": "log_loss", "penalty": "elasticnet", "tol": None}
    return standardized(
        SGDClassifier(learning_rate="invscaling", random_state=0, **fixed, **params)
    )


def suggest_nystroem(trial: optuna.Trial) -> Params:
    return {
        "gamma": trial.suggest_float("gamma", 1e-5, 1e1, log=True),
        "n_components": trial.suggest_int("n_components", 10, 120, log=True),
        "C": trial.suggest_float("C", 1e-4, 1e3, log=True),
    }


def build_nystroem(params: Params) -> BaseEstimator:
    features = Nystroem(gamma=params["gamma"], n_components=params["n_components"], random_state=0)
    return standardized(LogisticRegression(C=params["C"], max_iter=60), features)


def suggest_tree(trial: optuna.Trial) -> Params:
    return {
        "criterion": trial.suggest_categorical("criterion", ["gini", "entropy"]),
        "max_depth": trial.suggest_int("max_depth", 1, 30),
        "max_features": trial.suggest_float("max_features", 0.05, 1.0),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 256, log=True),
        "ccp_alpha": trial.suggest_float("ccp_alpha", 1e-6, 1e-1, log=True),
    }


def build_tree(params: Params) -> BaseEstimator:
    return DecisionTreeClassifier(random_state=0, **params)


def suggest_discriminant(trial: optuna.Trial) -> Params:
    return {
        "n_components": trial.suggest_float("n_components", 0.2, 0.999),
        "whiten": trial.suggest_categorical("whiten", [False, True]),
        "reg_param": trial.suggest_float("reg_param", 1e-5, 1.0, log=True),
    }


def build_discriminant(params: Params) -> BaseEstimator:
    """`n_components` is the share of the variance that is kept."""
    options = {name: value for name, value in params.items() if name != "reg_param"}
    components = PCA(svd_solver="full", **options)
    return standardized(QuadraticDiscriminantAnalysis(reg_param=params["reg_param"]), components)


def suggest_splines(trial: optuna.Trial) -> Params:
    return {
        "n_knots": trial.suggest_int("n_knots", 2, 12),
        "degree": trial.suggest_int("degree", 1, 4),
        "knots": trial.suggest_categorical("knots", ["uniform", "quantile"]),
        "extrapolation": trial.suggest_categorical("extrapolation", ["constant", "linear"]),
        "alpha": trial.suggest_float("alpha", 1e-4, 1e4, log=True),
    }


def build_splines(params: Params) -> BaseEstimator:
    options = {name: value for name, value in params.items() if name != "alpha"}
    return standardized(Ridge(alpha=params["alpha"]), SplineTransformer(**options))


SVM: Space = (suggest_svm, build_svm)
FOREST: Space = (suggest_forest, build_forest)
EXTRA_TREES: Space = (suggest_extra_trees, build_extra_trees)
BOOSTING: Space = (suggest_boosting, build_boosting)
MLP_ADAM: Space = (suggest_mlp_adam, build_mlp)
MLP_SGD: Space = (suggest_mlp_sgd, build_mlp)
ELASTIC_NET: Space = (suggest_elastic_net, build_elastic_net)
KERNEL_RIDGE: Space = (suggest_kernel_ridge, build_kernel_ridge)
NEIGHBORS: Space = (suggest_neighbors, build_neighbors)
SGD: Space = (suggest_sgd, build_sgd)
NYSTROEM: Space = (suggest_nystroem, build_nystroem)
TREE: Space = (suggest_tree, build_tree)
DISCRIMINANT: Space = (suggest_discriminant, build_discriminant)
SPLINES: Space = (suggest_splines, build_splines)
