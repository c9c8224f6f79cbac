"""The planner's seconds of a step against the measured: cold start and reinforcement of tiny, small and a cut medium.

Rates are measured in the same minutes on shapes that are none of those (`model_core.training.calibration`). One process, one
thread, processor's time. Goal: within 30 %. `ours` is the largest share by which a prediction misses; there is no peer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks._report import write
from model_core.planner.seconds import WITHIN


def main() -> None:
    """Measures every case and writes the result."""
    done = subprocess.run([sys.executable, "-m", "tests.model_core.planner.timed"], text=True, stdout=subprocess.PIPE, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    told = [line for line in done.stdout.splitlines() if line.startswith(('{"rates"', '{"case"'))]
    rates, *cases = (json.loads(line) for line in told)
    missed = max(abs(case["ratio"] - 1) for case in cases)
    write(
        "planned_time", packages=("torch", "deepspeed"), ours=round(missed, 3), peer=None, ratio=None,
        unit=f"largest share by which the predicted seconds of a step miss the measured; goal {WITHIN}",
        detail={
            **{case["case"]: {
                "ratio": round(case["ratio"], 3), "lengths": case["lengths"][-1],
                **{key: [round(value, 4) for value in case[key]] for key in ("measured", "predicted")},
            } for case in cases}, **rates,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
