"""Measures what this machine takes for the kinds of work in a training step; `plan --calibration` reads the file of rates.

It trains and samples small models of random weights for about a minute; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from model_core.rundir import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the rates go, and with how many threads."""
    parser.add_argument("file", type=Path, help="JSON file that the rates are written to")
    parser.add_argument("--threads", type=int, help="threads of a process; as a run of one process has them when nothing is said")


def run(args: argparse.Namespace) -> int:
    """Measures, and prints a line for each case."""
    import torch

    from model_core.training.calibration import calibrate
    from model_core.training.world import join

    torch.set_num_threads(args.threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    world = join()
    try:
        rates = calibrate(world, tell=lambda line: print(line, flush=True))
    finally:
        world.close()
    write_json(args.file, rates.resolved())
    return 0
