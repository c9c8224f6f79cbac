"""From an event file into PostgreSQL, 30 scalars a step, against `log_batch` of MLflow's server on the same PostgreSQL.

Ours reads the file that a trainer wrote and writes events, the pyramid, summary and offset, batch by batch in transactions, as a
supervisor does. The peer's clients send 1,000 points a call; the better of one and four clients at once counts. Both are durable:
every batch is on the disk when it counts. Goals: 100,000 points a second, and 12 times the peer's.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks._peers import python_of, serving, versions_of
from benchmarks._platform import database_address, new_project, new_run, platform
from benchmarks._report import write

NUM_SCALARS = 30
STEPS, TURNS = 20_000, 3
PEER_STEPS = {1: 1000, 4: 800}
"""Number of clients → steps that each logs."""
GOAL = 100_000


def main() -> None:
    """Measures both and writes the result."""
    with platform() as home:
        project, user = new_project()
        ours = [round(our_speed(project, user, STEPS)) for _ in range(TURNS)]
        peers = their_speeds(home)
    mine, best = sorted(ours)[TURNS // 2], max(peers.values())
    write(
        "ingest", packages=("django", "psycopg", "numpy"), peers=versions_of("mlflow"), ours=mine, peer=round(best),
        ratio=round(mine / best, 1), unit="points per second into PostgreSQL, 30 scalars a step; goals 100,000 and 12 times",
        detail={
            "ours_by_turn": ours, "goal": GOAL, "points_a_turn": STEPS * NUM_SCALARS,
            "peer_by_clients": {clients: round(speed) for clients, speed in peers.items()},
        },
    )  # fmt: skip


def our_speed(project: Any, user: Any, steps: int) -> float:
    """Points a second of a new run's file."""
    from model_core.rundir import RunDir
    from r1platform.lib.storage import run_dir
    from r1platform.models import Node
    from training_app.ingest import Ingest
    from training_app.models import MetricSeries, RunAttempt

    node, _ = Node.objects.get_or_create(name="bench")
    run = new_run(project, user)
    attempt = RunAttempt.objects.create(run=run, number=1, node=node, state="running")
    rundir = RunDir(run_dir(run.pk, 1))
    write_events(rundir.events, steps)
    ingest = Ingest(attempt, rundir, fence=attempt.fence)
    started = time.perf_counter()
    while ingest.take():
        pass
    seconds = time.perf_counter() - started
    found = list(MetricSeries.objects.filter(run=run).values_list("num_points", flat=True))
    assert found == [steps] * NUM_SCALARS, "not everything came in"
    return steps * NUM_SCALARS / seconds


def write_events(path: Path, steps: int) -> None:
    """What a trainer writes: one `scalars` event a step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for step in range(steps):
            values = {f"scalar/{number}": math.sin(step / 50 + number) for number in range(NUM_SCALARS)}
            payload = {"step": step, "tokens": step * 4096, "process_seconds": step / 4, "values": values}
            file.write(json.dumps({"seq": step + 1, "time": 1.8e9 + step / 4, "kind": "scalars", "payload": payload}) + "\n")


def their_speeds(home: Path) -> dict[int, float]:
    """Points a second by number of clients."""
    from r1platform.demo.stack import free_port

    python, port = python_of("mlflow"), free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [python, "-m", "mlflow", "server", "--backend-store-uri", database_address(home, "mlflow"), "--host", "127.0.0.1",
            "--port", str(port), "--default-artifact-root", str(home / "artifacts")]  # fmt: skip
    with serving(argv, f"{url}/health", cwd=home):
        return {clients: their_speed(python, url, clients, steps) for clients, steps in PEER_STEPS.items()}


def their_speed(python: str, url: str, clients: int, steps: int) -> float:
    """Points a second from the first call to the last answer; preparing them does not count."""
    script = str(Path(__file__).with_name("_mlflow.py"))
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    made = subprocess.check_output([python, script, "make", url, str(clients)], env=environment)
    argvs = [[python, script, "log", url, run, str(steps)] for run in json.loads(made.splitlines()[-1])]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) for argv in argvs]
    spans = [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]
    return clients * steps * NUM_SCALARS / (max(end for _, end in spans) - min(start for start, _ in spans))


if __name__ == "__main__":
    main()
