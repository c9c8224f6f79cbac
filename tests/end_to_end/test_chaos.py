"""The whole platform with a real trainer, and kill -9 for one part after another: training goes on, nothing is lost.

The parts are the trainer, web, worker, beat, the supervisor, Redis and PostgreSQL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.running import Platform, events, home_of, running, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
STEPS, EVERY = 420, 60
CONFIG = {
    "phase_config": {"steps": STEPS, "batch_size": 16},
    "held_out": {"num_problems": 32},
    "checkpoint": {"every_steps": EVERY, "keep_last": 3},
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("chaos")) as found:
        yield found


def kill(home: Path, *words: str, any_of: bool = False) -> int:
    """kill -9 for the one process of this home whose command line has all `words`, or for a server one of them."""
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        mine = str(home) in line if any_of else home_of(process) == str(home)
        if mine and (any if any_of else all)(word in line for word in words):
            os.kill(process.pid, signal.SIGKILL)
            return int(process.pid)
    raise AssertionError(f"There is no process with {words}.")


def test_killed_one_after_another_the_run_ends_as_it_would_have(platform: Platform) -> None:
    api, read, home = platform.api, platform.read, platform.home
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
    for child in ("web", "worker", "beat"):
        pid = read()["children"][child]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda child=child, pid=pid: read()["children"][child]["pid"] != pid)  # type: ignore[misc]
    until(lambda: api.get(f"runs/{run}/"))
    kill(home, "manage.py", "supervise ")
    until(lambda: any(e["kind"] == "scalars" for e in events(api, run) if e["attempt"] == 2))
    for server in (("valkey-server", "redis-server"), ("postgres",)):
        kill(home, *server, any_of=True)
        until(lambda: api.get(f"runs/{run}/"))
    ended = until(lambda: (found := api.get(f"runs/{run}/"))["state"] == "succeeded" and found, seconds=200)
    told = events(api, run)
    for attempt in (1, 2):
        seqs = [event["seq"] for event in told if event["attempt"] == attempt]
        assert seqs == list(range(1, len(seqs) + 1)), f"attempt {attempt}"
    assert {event["attempt"] for event in told} == {1, 2}
    steps = [e["payload"]["step"] for e in told if e["attempt"] == 2 and "loss" in e["payload"].get("values", {})]
    first = steps[0]
    saved = [e["payload"]["step"] for e in told if e["attempt"] == 1 and e["kind"] == "checkpoint"]
    assert steps == list(range(first, STEPS + 1)) and first - 1 == saved[-1], "it goes on from the newest checkpoint"
    (loss,) = api.get(f"runs/{run}/metrics/", names="loss")["series"]
    assert loss["x"] == list(range(1, STEPS + 1)) and loss["last"][-1] < loss["last"][0]
    assert ended["result"]["steps"] == STEPS
    assert api.get(f"runs/{run}/checkpoints/")[0]["is_final"]

