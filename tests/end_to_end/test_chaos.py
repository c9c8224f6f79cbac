"""The whole platform with a real trainer, and kill -9 for one part after another: training goes on, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from r1platform.demo.client import Api, DemoError
from r1platform.demo.stack import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
STEPS, EVERY = 420, 60
CONFIG = {
    "phase_config": {"steps": STEPS, "batch_size": 16},
    "held_out": {"num_problems": 32},
    "checkpoint": {"every_steps": EVERY, "keep_last": 3},
}


def until(condition: Callable[[], Any], *, seconds: float = 90.0) -> Any:
    """What `condition` returns once it is true; an answer that the web owes us is waited for too."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except (OSError, DemoError, httpx.HTTPError):
            pass  # the web was killed a moment ago
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def platform(home: Path) -> Iterator[tuple[Api, Callable[[], dict[str, Any]]]]:
    """A platform of its own, by `up`, and how to read its up.json."""
    root = Path(__file__).parents[2]
    env = {k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}}
    env |= {"R1_HOME": str(home), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "manage.py", "up", "--port", str(free_port())]
    with (home / "up.out").open("wb") as out:
        child = subprocess.Popen(argv, cwd=root, env=env, stdout=out, stderr=out, start_new_session=True)

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((home / "up.json").read_text())
        return found

    until(lambda: (home / "up.json").exists() and read()["ready"])
    api = Api(read()["base_url"], read()["sign_in_path"])
    yield api, read
    api.close()
    child.send_signal(signal.SIGINT)
    assert child.wait(120) == 0, (home / "up.out").read_text()[-3000:]
    left = [p for p in psutil.process_iter(["pid"]) if _home_of(p) == str(home)]
    assert not left, left


def _home_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("R1_HOME", "")
    except psutil.Error:
        return ""


def kill(home: Path, *words: str) -> int:
    """kill -9 for the one process of this home whose command line has all `words`."""
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if all(word in line for word in words) and _home_of(process) == str(home):
            os.kill(process.pid, signal.SIGKILL)
            return int(process.pid)
    raise AssertionError(f"There is no process with {words}.")


def events(api: Api, run: int) -> list[dict[str, Any]]:
    """Every event of the run, page by page."""
    found: list[dict[str, Any]] = []
    after = 0
    while page := api.get(f"runs/{run}/events/", after=after, limit=1000)["events"]:
        found += page
        after = page[-1]["id"]
    return found


def test_killed_one_after_another_the_run_ends_as_it_would_have(
    platform: tuple[Api, Callable[[], dict[str, Any]]], home: Path
) -> None:
    api, read = platform
    project = api.post("projects/", name="Chaos")["id"]
    dataset = api.post("datasets/", project=project, name="Sums", kind="self")
    config = {"source": "generated", "source_config": {"task": "sums", "num_train": 400, "num_held_out": 64}}
    version = api.post(f"datasets/{dataset['id']}/versions/", config=config)["id"]
    run = api.post("runs/", project=project, name="r", phase="cold_start", config=CONFIG, dataset_version=version)["id"]

    def at(step: int) -> Callable[[], bool]:
        return lambda: api.get(f"runs/{run}/")["progress"].get("step", 0) >= step

    until(at(EVERY + 10))
    kill(home, "model_core", "train", f"/runs/{run}/1")
    until(lambda: any(e["attempt"] == 2 and e["kind"] == "started" for e in events(api, run)))
    until(at(EVERY + 30))
    for child in ("web", "worker"):
        pid = read()["children"][child]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda child=child, pid=pid: read()["children"][child]["pid"] != pid)  # type: ignore[misc]
    until(lambda: api.get(f"runs/{run}/"))
    kill(home, "manage.py", "supervise ")
    ended = until(lambda: (found := api.get(f"runs/{run}/"))["state"] == "succeeded" and found, seconds=200)
    told = events(api, run)
    for attempt in (1, 2):
        seqs = [event["seq"] for event in told if event["attempt"] == attempt]
        assert seqs == list(range(1, len(seqs) + 1)), f"attempt {attempt}"
    assert {event["attempt"] for event in told} == {1, 2}
    steps = [e["payload"]["step"] for e in told if e["attempt"] == 2 and "loss" in e["payload"].get("values", {})]
    first = steps[0]
    assert steps == list(range(first, STEPS + 1)) and (first - 1) % EVERY == 0 and first > 1
    (loss,) = api.get(f"runs/{run}/metrics/", names="loss")["series"]
    assert loss["x"] == list(range(1, STEPS + 1)) and loss["last"][-1] < loss["last"][0]
    assert ended["result"]["steps"] == STEPS
    assert api.get(f"runs/{run}/checkpoints/")[0]["is_final"]

