"""Reading charts over HTTP: ours against MLflow's `get-history-bulk-interval` on the same PostgreSQL, and TensorBoard.

*one*: one series of 10^6 points. *zoom*: 10^4 steps of it. *grid*: 10 runs × 10 metrics × 10^4 steps. *many*: 50 runs' series of
10^6 points; MLflow is asked for `PEER_SERIES` of them only, because its table takes minutes to fill: its time is that of fewer.
Times are from the request to the whole answer, on the same machine; peers are asked as their own pages ask. Points are random
doubles, the hardest to compress. Goals: *many* within 100 ms (p95) and 300 KB, extremes exact, and 10 times MLflow's speed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks._peers import ROOT, python_of, serving, versions_of
from benchmarks._platform import database_address, new_project, new_run, platform
from benchmarks._report import write

POINTS, NUM_SERIES, PEER_SERIES = 10**6, 50, 2
GRID_RUNS, GRID_METRICS, GRID_POINTS = 10, 10, 10**4
ZOOM = (400_000, 410_000)
TIMES, PEER_TIMES = 40, 8
GOAL_MS, GOAL_BYTES = 100.0, 300_000
Values = NDArray[np.float64]
Ask = Callable[[], list[httpx.Response]]


def main() -> None:
    """Measures all and writes the result; the ratio is to MLflow, that of the case where it is smallest."""
    with platform() as home, ExitStack() as running:
        detail = {}
        for name, cases in {"ours": our_cases, "mlflow": mlflow_cases, "tensorboard": tensorboard_cases}.items():
            detail[name] = cases(home, running)
            running.close()
            print(name, detail[name], flush=True)
    ours, mlflow, tensorboard = detail.values()
    ratios = {name: round(mlflow[name]["p50_ms"] / ours[name]["p50_ms"], 1) for name in mlflow}
    many = ours["many"]
    write(
        "charts", packages=("django", "djangorestframework", "psycopg", "numpy", "uvicorn"),
        peers=versions_of("mlflow", "tensorboard"), ours=many["p95_ms"], peer=mlflow["many"]["p50_ms"], ratio=min(ratios.values()),
        unit="ms until 50 series of 10^6 points are read, p95; goals 100 ms, 300 KB, 10 times MLflow in each case",
        detail={
            **detail, "times_mlflow": ratios, "mlflow_series_in_many": PEER_SERIES,
            "times_tensorboard": {name: round(tensorboard[name]["p50_ms"] / ours[name]["p50_ms"], 1) for name in tensorboard},
            "goals_met": many["p95_ms"] <= GOAL_MS and many["bytes"] <= GOAL_BYTES and min(ratios.values()) >= 10,
        },
    )  # fmt: skip


def series_of(number: int, points: int = POINTS) -> Values:
    """A slow wave, noise, and a spike each way that sampling would miss."""
    draw = np.random.default_rng(number)
    values: Values = np.sin(np.arange(points) / 20_000 + number) + draw.normal(0, 0.1, points)
    values[draw.integers(points)], values[draw.integers(points)] = 50.0 + draw.random(), -50.0 - draw.random()
    return values


def timed(ask: Ask, times: int) -> dict[str, Any]:
    """p50 and p95 in ms, bytes on the wire, and the number of requests, after two that do not count."""
    for _ in range(2):
        answers = ask()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        answers = ask()
        seconds.append(time.perf_counter() - started)
    assert all(answer.status_code == 200 for answer in answers), answers[0].text[:500]
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 1), "p95_ms": round(ordered[int(len(ordered) * 0.95)] * 1000, 1),
        "bytes": sum(answer.num_bytes_downloaded for answer in answers), "requests": len(answers),
    }  # fmt: skip


def our_cases(home: Path, running: ExitStack) -> dict[str, Any]:
    """Ours, over the web process; extremes are compared with the points."""
    from r1platform.demo.stack import free_port
    from r1platform.keys import SCOPES, api_key_create

    project, user = new_project()
    runs = [new_run(project, user).pk for _ in range(NUM_SERIES)]
    grid = [new_run(project, user).pk for _ in range(GRID_RUNS)]
    for number, run in enumerate(runs):
        put(run, "loss", series_of(number))
    for run in grid:
        for number in range(GRID_METRICS):
            put(run, f"m/{number}", series_of(run * GRID_METRICS + number, GRID_POINTS))
    key = api_key_create(user=user, name="bench", scopes=SCOPES)[1]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "uvicorn", "r1platform.asgi:application", "--port", str(port), "--log-level", "warning"]
    running.enter_context(serving(argv, f"{url}/livez", cwd=ROOT, env={**os.environ, "R1_HOME": str(home)}))
    http = httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    lean = {"buckets": 1000, "columns": "x,last,min,max,n,nonfinite"}
    many = {"runs": ",".join(map(str, runs)), "names": "loss", **lean}
    one, window = f"/runs/{runs[0]}/metrics/", {"names": "loss", "from": ZOOM[0], "to": ZOOM[1]}
    found = {
        "one": timed(lambda: [http.get(one, params={"names": "loss"})], TIMES),
        "zoom": timed(lambda: [http.get(one, params=window)], TIMES),
        "grid": timed(lambda: [http.get("/runs/metrics/", params={"runs": ",".join(map(str, grid)), **lean})], TIMES),
        "many": timed(lambda: [http.get("/runs/metrics/", params=many)], TIMES),
    }
    whole = http.get("/runs/metrics/", params=many).json()["runs"]
    assert all(is_exact(of_run["series"][0], series_of(number)) for number, of_run in enumerate(whole)), "extremes were lost"
    window_series = http.get(one, params=window).json()["series"][0]
    assert is_exact(window_series, series_of(0)[ZOOM[0] : ZOOM[1] + 1]), "extremes of the window were lost"
    return found


def put(run: int, name: str, values: Values) -> None:
    """The points of a series, written as ingestion writes them."""
    from django.db import transaction

    from training_app import buckets, pyramid
    from training_app.models import MetricSeries

    found = np.empty(len(values), buckets.BUCKET)
    steps = np.arange(len(values))
    found["step"], found["time"], found["tokens"], found["process"] = steps, 1.8e9 + steps, steps * 4096, steps / 4
    found["last"] = found["min"] = found["max"] = values
    found["n"], found["nonfinite"] = 1, 0
    with transaction.atomic():
        pyramid.write([(MetricSeries.objects.create(run_id=run, name=name), found)])


def is_exact(column: dict[str, Any], values: Values) -> bool:
    return bool(min(column["min"]) == values.min() and max(column["max"]) == values.max() and sum(column["n"]) == len(values))


def mlflow_cases(home: Path, running: ExitStack) -> dict[str, Any]:
    """MLflow's server with the same points in its own tables, put there by SQL."""
    from r1platform.demo.stack import free_port

    python, port = python_of("mlflow"), free_port()
    url, address = f"http://127.0.0.1:{port}", database_address(home, "mlflow")
    argv = [python, "-m", "mlflow", "server", "--backend-store-uri", address, "--host", "127.0.0.1", "--port", str(port),
            "--default-artifact-root", str(home / "artifacts")]  # fmt: skip
    running.enter_context(serving(argv, f"{url}/health", cwd=home))
    script, number = str(Path(__file__).with_name("_mlflow.py")), PEER_SERIES + GRID_RUNS
    made = subprocess.check_output([python, script, "make", url, str(number)], env={**os.environ, "PYTHONWARNINGS": "ignore"})
    runs = json.loads(made.splitlines()[-1])
    runs, grid = runs[:PEER_SERIES], runs[PEER_SERIES:]
    fill_mlflow(home, runs, grid)
    http = httpx.Client(base_url=f"{url}/ajax-api/2.0/mlflow/metrics", timeout=120)

    def ask(run_ids: list[str], key: str, **more: int) -> httpx.Response:
        given = {"run_ids": run_ids, "metric_key": key, "max_results": 1000, **more}
        return http.get("/get-history-bulk-interval", params=given)

    found = {
        "one": timed(lambda: [ask(runs[:1], "loss")], PEER_TIMES),
        "zoom": timed(lambda: [ask(runs[:1], "loss", start_step=ZOOM[0], end_step=ZOOM[1])], PEER_TIMES),
        "grid": timed(lambda: [ask(grid, f"m/{number}") for number in range(GRID_METRICS)], PEER_TIMES),
        "many": timed(lambda: [ask(runs, "loss")], PEER_TIMES),
    }
    told = [float(metric["value"]) for metric in ask(runs[:1], "loss").json()["metrics"]]
    found["one"]["keeps_extremes"] = bool(max(told) == series_of(0).max() and min(told) == series_of(0).min())
    return found


def fill_mlflow(home: Path, runs: list[str], grid: list[str]) -> None:
    """As `log_batch` would leave the tables."""
    import psycopg

    from r1platform.lib.embedded import Postgres

    host = str(Postgres(home).socket_dir)
    with psycopg.connect(host=host, user="postgres", dbname="mlflow", autocommit=True) as connection:
        for run, name, values in mlflow_series(runs, grid):
            with connection.cursor().copy("COPY metrics (key, value, timestamp, run_uuid, step, is_nan) FROM STDIN") as copy:
                for step, value in enumerate(values.tolist()):
                    copy.write_row((name, value, 1_800_000_000_000 + step, run, step, False))
            connection.execute(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (%s, %s, %s, %s, false, %s)",
                (name, float(values[-1]), 1_800_000_000_000 + len(values) - 1, len(values) - 1, run),
            )
        connection.execute("VACUUM ANALYZE metrics")


def mlflow_series(runs: list[str], grid: list[str]) -> Iterator[tuple[str, str, Values]]:
    for number, run in enumerate(runs):
        yield run, "loss", series_of(number)
    for place, run in enumerate(grid):
        for number in range(GRID_METRICS):
            yield run, f"m/{number}", series_of(place * GRID_METRICS + number, GRID_POINTS)


def tensorboard_cases(home: Path, running: ExitStack) -> dict[str, Any]:
    """TensorBoard with its defaults, after it has loaded everything; it keeps 1,000 points a series, drawn at random."""
    from r1platform.demo.stack import free_port

    python, port, folder = python_of("tensorboard"), free_port(), home / "tensorboard"
    folder.mkdir()
    np.savez(folder / "long.npz", loss=series_of(0))
    for run in range(GRID_RUNS):
        named = {f"m|{number}": series_of(run * GRID_METRICS + number, GRID_POINTS) for number in range(GRID_METRICS)}
        np.savez(folder / f"grid{run}.npz", **named)
    script = str(Path(__file__).with_name("_tensorboard.py"))
    subprocess.run([python, script, str(folder / "logs"), *map(str, sorted(folder.glob("*.npz")))], check=True)
    url = f"http://127.0.0.1:{port}"
    argv = [python, "-m", "tensorboard.main", "--logdir", str(folder / "logs"), "--port", str(port), "--host", "127.0.0.1"]
    running.enter_context(serving(argv, url))
    http = httpx.Client(base_url=f"{url}/data/plugin", timeout=120)

    def one() -> httpx.Response:
        return http.get("/scalars/scalars", params={"run": "long", "tag": "loss"})

    def grid() -> httpx.Response:
        wanted = [{"plugin": "scalars", "tag": f"m/{number}"} for number in range(GRID_METRICS)]
        return http.post("/timeseries/timeSeries", data={"requests": json.dumps(wanted)})

    started = time.perf_counter()
    while not (is_loaded(one(), POINTS) and len(http.get("/scalars/tags").json()) == GRID_RUNS + 1):
        assert time.perf_counter() - started < 300, "TensorBoard did not load its files"
        time.sleep(1)
    found = {"one": timed(lambda: [one()], TIMES), "grid": timed(lambda: [grid()], TIMES)}
    told = [value for _time, _step, value in one().json()]
    found["one"]["keeps_extremes"] = bool(np.isclose(max(told), series_of(0).max()) and np.isclose(min(told), series_of(0).min()))
    return found


def is_loaded(answer: httpx.Response, points: int) -> bool:
    return answer.status_code == 200 and bool(answer.json()) and answer.json()[-1][1] == points - 1


if __name__ == "__main__":
    main()
