"""How a trainer is started: DeepSpeed's own launcher on one node, one process a rank. Imports without torch.

`command` is the argument list and `environment` what must differ in the environment; who spawns it (a supervisor, a
shell, a test) does not matter. A single process may also be run bare: `model_core.training.world` fills in the rest.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from pathlib import Path

SPIN_COUNT = "1000"
"""Turns that a waiting thread of libgomp makes before it sleeps."""


def command(
    rundir: str | Path, *, num_processes: int, python: str = sys.executable, master_port: int | None = None
) -> list[str]:
    """Argument list that trains `rundir` with `num_processes` ranks; exit status 2 is an error that events.jsonl tells.

    A `master_port` of None takes a port that is free now.
    """
    world = base64.urlsafe_b64encode(json.dumps({"localhost": list(range(num_processes))}).encode()).decode()
    return [
        python, "-m", "deepspeed.launcher.launch", f"--world_info={world}", "--master_addr=127.0.0.1",
        f"--master_port={master_port or free_port()}", "--no_local_rank", "--quiet", "--module",
        "model_core", "train", str(rundir),
    ]


def environment(*, num_processes: int = 1, num_cores: int | None = None) -> dict[str, str]:
    """What the trainer's environment must have besides the caller's.

    The cores are shared out among the ranks: more threads than cores make every operator wait for the slowest. And a
    thread that waits gives its core away soon: one that spins keeps out the very thread that it waits for as soon as
    anything else runs on the machine (docs/experiments.md, "Threads that wait").
    """
    cores = num_cores or len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // num_processes))
    return {
        "OMP_NUM_THREADS": threads,
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", SPIN_COUNT),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
