"""MLflow's side of a benchmark, run by the peer's interpreter: `_mlflow.py make|log …`. Imports nothing of ours.

`make URL N` makes N runs and prints their ids; `log URL RUN_ID STEPS` logs 30 scalars a step, 1,000 a call, as its users do.
"""

import json
import math
import sys
import time

NUM_SCALARS, PER_CALL = 30, 1000


def main(word, url, *rest):
    """Prints one line of JSON."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=url)
    if word == "make":
        found = [client.create_run("0").info.run_id for _ in range(int(rest[0]))]
    else:
        found = log(client, rest[0], int(rest[1]))
    print(json.dumps(found))


def log(client, run_id, steps):
    """Answers the times of start and end."""
    from mlflow.entities import Metric

    at, waiting = int(time.time() * 1000), []
    points = [
        Metric(f"scalar/{number}", math.sin(step / 50 + number), at + step, step)
        for step in range(steps)
        for number in range(NUM_SCALARS)
    ]
    started = time.time()
    for point in points:
        waiting.append(point)
        if len(waiting) == PER_CALL:
            client.log_batch(run_id, metrics=waiting)
            waiting = []
    if waiting:
        client.log_batch(run_id, metrics=waiting)
    return [started, time.time()]


if __name__ == "__main__":
    main(*sys.argv[1:])
