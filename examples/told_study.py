"""A study that is told the model: every trial starts from the weights that it predicts.

python examples/told_study.py [--trials 8]

The digits of hypertraining.py. The hypernetwork is trained once, in the first suggestion; a trial
then is a short training that starts from its weights at the trial's hyperparameters.
"""

from __future__ import annotations

import argparse

import optuna
from hypertraining import SPACE
from hypertraining import digits
from hypertraining import valid_loss

from optuna_hypernet import HypernetSampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    n_trials = parser.parse_args().trials
    training, test = digits()
    models = {}

    def objective(trial: optuna.Trial) -> float:
        params = {
            name: trial.suggest_float(name, kind.low, kind.high, log=kind.log)
            for name, kind in SPACE.items()
        }
        tuned = training.train(params, steps=200, model=training.best_response(params))
        models[trial.number] = tuned.model
        return tuned.true_loss

    study = optuna.create_study(sampler=HypernetSampler(seed=0, training=training))
    study.optimize(objective, n_trials=n_trials)
    untuned = training.train({name: kind.low for name, kind in SPACE.items()}, steps=2000)
    for name, model in {"untuned": untuned.model, "best": models[study.best_trial.number]}.items():
        print(f"{name} test loss {valid_loss(model.eval(), test).item():.3f}")
    print(", ".join(f"{name} = {value:.2g}" for name, value in study.best_params.items()))


if __name__ == "__main__":
    main()
