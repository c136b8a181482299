"""`run`: every sampler on every problem with every seed, in worker processes, resumable."""

import argparse
import multiprocessing
import multiprocessing.connection
import os
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from itertools import product

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from tqdm import tqdm

from benchmarks import THREADS
from benchmarks import MissingError
from benchmarks import UsageError
from benchmarks import dashboard
from benchmarks import optima
from benchmarks import positive
from benchmarks import results
from benchmarks import runs
from benchmarks import samplers
from benchmarks import store
from benchmarks import suites
from benchmarks.problem import Problem
from benchmarks.store import Task


SECONDS_BETWEEN_SAVES = 1.0  # the most work that a kill can cost
SOURCE_TRIALS = 50
SOURCE_SEED = 1000  # and on: seeds that no study compared has
LIBRARIES = ("scikit-learn", "lightgbm", "xgboost-cpu", "xgboost")
PACKAGES = ("optuna", "numpy", "scipy", "torch", *LIBRARIES, "optuna-hypernet")


def trial_of(study: optuna.Study, problem: Problem, rng: np.random.Generator) -> Iterator[None]:
    """One trial: ask and suggest (timed); then, once it is gone on with, evaluate and tell.

    A crash is a failed trial, not the end.
    """
    start = time.perf_counter()
    trial = study.ask()
    try:
        params = problem.suggest(trial)
        trial.set_user_attr("seconds", round(time.perf_counter() - start, 6))
        yield
        value = problem.evaluate(params, rng)
        if problem.constraints is not None:
            for name, held in problem.constraints(params).items():
                trial.set_constraint(name, held)
        if problem.score is not None:
            trial.set_user_attr("score", problem.score(params))
    except MissingError:  # no configuration is to blame
        raise
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)


def advance(
    study: optuna.Study, problem: Problem, rngs: Iterable[np.random.Generator]
) -> Iterator[None]:
    """A trial with each generator; comes back whenever one has ended.

    `problem.at_once` of them run at a time, and the one that began first is the first to end.
    """
    running: deque[Iterator[None]] = deque()
    for rng in rngs:
        running.append(trial_of(study, problem, rng))
        next(running[-1], None)
        if len(running) == problem.at_once:
            next(running.popleft(), None)
            yield
    for trial in running:
        next(trial, None)
        yield


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of those `packages` that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(study: optuna.Study, task: Task) -> None:
    """Attributes of a new stored study."""
    attributes = {
        "suite": task.suite,
        "problem": task.problem,
        "sampler": task.sampler,
        "seed": task.seed,
        "threads": THREADS,
        "versions": versions(*PACKAGES),
    }
    for name in attributes.keys() - study.user_attrs.keys():
        study.set_user_attr(name, attributes[name])


def conclude(study: optuna.Study, task: Task, problem: Problem) -> None:
    """Attributes, note and plot of a complete stored study."""
    trials = study.get_trials(deepcopy=False)
    spent = runs.seconds(trials)
    if np.isfinite(spent).any():
        study.set_user_attr("seconds per suggestion", round(float(np.nanmedian(spent)), 6))
    reference = optima.load().get(task.problem)
    if reference is not None and dashboard.installed():
        values = runs.incumbents(trials, problem.direction)
        dashboard.annotate(study, problem, results.regret(values, reference))
    study.set_user_attr("trials", len(trials))


def run_study(task: Task) -> str:
    """Bring one study to `task.trials` finished trials; returns what failed, if anything did.

    The samplers work on a study in memory, so that what is timed is the sampler and not the
    database. A sampler that resumes gets a seed of its own: with the first one it would repeat its
    first suggestions.
    """
    problem = suites.problem(task.suite, task.problem)
    stored = optuna.create_study(
        storage=store.connect(task.storage),
        study_name=task.study_name,
        directions=[problem.direction] * problem.objectives,
        load_if_exists=True,
    )
    describe(stored, task)
    journal = store.Journal(stored)
    done = len(journal.trials)
    seed = np.random.SeedSequence([task.seed, done]).generate_state(1)[0] if done else task.seed
    sources = [tuned_before(source, task.seed) for source in problem.sources]
    sampler = samplers.built(task.sampler, int(seed), sources)
    study = optuna.create_study(directions=stored.directions, sampler=sampler)
    study.add_trials(journal.trials)
    if task.sampler not in samplers.LEARN_FROM_SOURCES:
        for source in sources[done:]:  # what one does without: try what was best there
            study.enqueue_trial(source.best_params)
    saved = time.monotonic()
    rngs = (np.random.default_rng([task.seed, number]) for number in range(done, task.trials))
    for _ in advance(study, problem, rngs):
        if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            journal.append(study.get_trials(deepcopy=False))
            saved = time.monotonic()
    journal.append(study.get_trials(deepcopy=False))
    conclude(stored, task, problem)
    return failures(study.get_trials(deepcopy=False))


def tuned_before(problem: Problem, seed: int) -> optuna.Study:
    """An earlier study of a problem, by Optuna's default sampler, with a seed of its own."""
    sampler = optuna.samplers.TPESampler(seed=SOURCE_SEED + seed)
    study = optuna.create_study(direction=problem.direction, sampler=sampler)
    rngs = (np.random.default_rng([SOURCE_SEED + seed, number]) for number in range(SOURCE_TRIALS))
    for _ in advance(study, problem, rngs):
        pass
    return study


def failures(trials: list[FrozenTrial]) -> str:
    """How many trials failed, and of what the first one did; nothing if none did."""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    errors = [trial.user_attrs.get("error", "a value that is no number") for trial in failed]
    return (
        f"{len(errors)} of {len(trials)} trials failed, the first of {errors[0]}" if errors else ""
    )


def start_worker() -> None:
    """Silence the libraries, and end with the parent even if that is killed."""
    samplers.quiet()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def run_all(tasks: list[Task], jobs: int) -> int:
    """Run the tasks in `jobs` processes; returns how many could not be run."""
    broken = 0
    context = multiprocessing.get_context("spawn")
    total = sum(task.trials for task in tasks)
    with (
        ProcessPoolExecutor(jobs, context, start_worker) as pool,
        tqdm(total=total, unit="trial", smoothing=0, disable=not tasks) as bar,
    ):
        futures = {pool.submit(run_study, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                task = futures[future]
                bar.set_postfix_str(task.study_name)
                if isinstance(error := future.exception(), BrokenProcessPool):
                    raise UsageError(f"{error}; the same command goes on from here")
                if error:
                    broken += 1
                    tqdm.write(f"{task.study_name}: {type(error).__name__}: {error}", sys.stderr)
                elif failed := future.result():
                    tqdm.write(f"{task.study_name}: {failed}", sys.stderr)
                bar.update(task.trials)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise UsageError("stopped; the same command goes on from here") from None
    return broken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m benchmarks run`."""
    parser.add_argument("--suite", required=True, help=f"one of {', '.join(suites.SUITES)}")
    parser.add_argument("--problems", default="*", help="names or patterns, comma-separated")
    parser.add_argument(
        "--samplers",
        default="hypernet,tpe,gp,random",
        help=f"of {', '.join(samplers.PEERS)}, or package.module:Class; comma-separated",
    )
    parser.add_argument("--seeds", type=positive, default=10, help="seeds 0, 1, … of each study")
    parser.add_argument("--trials", type=positive, default=100, help="trials of each study")
    parser.add_argument("--storage", default="sqlite:///benchmarks.db")
    parser.add_argument("--jobs", type=positive, default=1, help="worker processes")


def main(args: argparse.Namespace) -> int:
    """Run what is not complete yet, seed by seed: an early stop leaves a fair comparison."""
    problems = suites.select(args.suite, args.problems)
    usable = samplers.usable(args.samplers)
    if not dashboard.installed():
        print("skipped notes and plots: no optuna-dashboard or no plotly", file=sys.stderr)
    complete = store.lengths(store.connect(args.storage))
    tasks = [
        Task(args.storage, args.suite, problem, sampler, seed, args.trials)
        for seed, problem, sampler in product(range(args.seeds), problems, usable)
    ]
    left = [task for task in tasks if complete.get(task.study_name, 0) < task.trials]
    print(f"{len(tasks) - len(left)} of {len(tasks)} studies are complete", file=sys.stderr)
    broken = run_all(left, args.jobs)
    if broken:
        print(f"{broken} studies could not be run; the same command tries again", file=sys.stderr)
    return 1 if broken else 0
