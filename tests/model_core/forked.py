"""Processes of their own for tests that look at what a run does, without the seconds that imports take each time.

All are forked from one process that has imported torch, DeepSpeed and the library. Tests of how a trainer is started (the
word, DeepSpeed's launcher, signals to it) start it as the platform does instead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from model_core.launch import environment, free_port

LIMIT_SECONDS = 120
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.model_core.preloaded"])
RENDEZVOUS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def run(argv: list[str], *, output: Path, num_processes: int = 1, seconds: float = LIMIT_SECONDS) -> int:
    """What `python -m model_core ARGV` ends with on so many ranks; a rank that fails ends the others, as under the launcher.

    All that they write goes to `output`.
    """
    ranks = start(argv, output=output, num_processes=num_processes)
    deadline, running, status = time.monotonic() + seconds, list(ranks), 0
    while running and not status:
        ended = wait([rank.sentinel for rank in running], deadline - time.monotonic())
        assert ended, f"not ended in {seconds} s: {output.read_text()[-4000:]}"
        status = next((rank.exitcode for rank in running if rank.exitcode), 0)
        running = [rank for rank in running if rank.exitcode is None]
    for rank in ranks:
        rank.kill()
        rank.join()
        rank.close()
    return status


def start(argv: list[str], *, output: Path, num_processes: int = 1) -> list[ForkServerProcess]:
    """One process a rank, at work."""
    env = {**os.environ, **environment(num_processes=num_processes), "OMP_NUM_THREADS": "1"}
    env = {name: value for name, value in env.items() if name not in RENDEZVOUS}
    ranks = [FORKS.Process(target=_become, args=(argv, env | place, str(output))) for place in _places(num_processes)]
    for rank in ranks:
        rank.start()
    return ranks


def _places(num_processes: int) -> list[dict[str, str]]:
    """What the launcher tells each rank; nothing to a process alone, which is started bare."""
    if num_processes == 1:
        return [{}]
    world = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def _become(argv: list[str], env: dict[str, str], output: str) -> None:
    to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(to, 1)
    os.dup2(to, 2)
    os.environ.clear()
    os.environ.update(env)
    import torch

    torch.set_num_threads(1)
    from model_core.__main__ import main

    sys.exit(main(argv))
