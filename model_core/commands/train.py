"""Trains a run directory to its end: reads config.json, writes events.jsonl, checkpoints and, last, result.json.

Started bare for several processes it becomes DeepSpeed's launcher. Exit status 0: result.json says how it ended;
2: an error that the user can mend, told as an event and in result.json; any other: the trainer broke, see stdout.log.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from typing import TYPE_CHECKING, Any

from model_core.config import RunConfig, RunPaths
from model_core.errors import MachineError, ModelCoreError
from model_core.rundir import RunDir, write_json

if TYPE_CHECKING:
    from model_core.training.reporter import Reporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run directory is all it needs."""
    parser.add_argument("run_dir", help="directory with a config.json, see model_core/rundir.py")


def run(args: argparse.Namespace) -> int:
    """Trains; see the module for the exit status."""
    from model_core.training.reporter import Reporter

    rundir = RunDir(args.run_dir)
    try:
        config, paths = rundir.load()
    except ModelCoreError as error:
        if not rundir.path.is_dir():
            raise
        reporter = Reporter(rundir, is_first=os.environ.get("RANK", "0") == "0")
        return _failed(rundir, reporter, error, is_first=os.environ.get("RANK", "0") == "0")
    if config.parallel.num_processes > 1 and "RANK" not in os.environ:
        _become_launcher(rundir, config)
    return _train(rundir, config, paths)


def _become_launcher(rundir: RunDir, config: RunConfig) -> None:
    from model_core.launch import command, environment

    num = config.parallel.num_processes
    argv = command(rundir.path, num_processes=num)
    os.execve(argv[0], argv,  # noqa: S606 (an argument list of ours, no shell)
              {**os.environ, **environment(num_processes=num)})


def _train(rundir: RunDir, config: RunConfig, paths: RunPaths) -> int:
    from model_core.training.reporter import Reporter

    is_first = os.environ.get("RANK", "0") == "0"
    reporter = Reporter(rundir, is_first=is_first)
    reporter.stage("loading", 0)
    try:
        result = _run_phase(rundir, config, paths, reporter)
    except ModelCoreError as error:
        return _failed(rundir, reporter, error, is_first=is_first)
    except (OSError, RuntimeError) as error:
        known = _machine_error(error)
        if known is None:
            reporter.emit("error", type=type(error).__name__, message=str(error), field="", rank=0, step=None)
            raise
        return _failed(rundir, reporter, known, is_first=is_first)
    _finish(rundir, reporter, result, is_first=is_first)
    return 0


def _run_phase(rundir: RunDir, config: RunConfig, paths: RunPaths, reporter: Reporter) -> dict[str, Any]:
    from model_core.phases import PHASES
    from model_core.training import world as worlds
    from model_core.training.frame import Context
    from model_core.training.start import check_machine

    world = worlds.join()
    check_machine(config, world)
    context = Context(rundir, paths, world, reporter)
    result: dict[str, Any] = PHASES.get(config.phase)().run(config, context)
    world.barrier()
    world.close()
    return result


def _machine_error(error: OSError | RuntimeError) -> MachineError | None:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return MachineError("The disk is full. Free some space, or keep fewer checkpoints, and resume the run.")
    if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
        return MachineError(
            "The device has too little memory. Lower max_micro_tokens or the batch, or turn gradient checkpointing on, "
            "and resume the run.", field="phase_config.max_micro_tokens",
        )
    return None


def _failed(rundir: RunDir, reporter: Reporter, error: ModelCoreError, *, is_first: bool) -> int:
    told = {"type": type(error).__name__, "message": error.message, "field": error.field}
    step = getattr(error, "step", None)
    reporter.emit("error", **told, rank=getattr(error, "rank", 0), step=step)
    complete = rundir.complete_checkpoints()
    print(f"{told['type']}: {error.message}", file=sys.stderr)
    _finish(rundir, reporter, {
        "status": "failed", "ended_by": "error", "reason": error.message, "steps": step or 0, "tokens": 0,
        "seconds": reporter.process_seconds, "device_seconds": reporter.process_seconds,
        **dict.fromkeys((
            "accuracy_before", "accuracy", "accuracy_low", "accuracy_high", "quality_before", "quality", "quality_low",
            "quality_high")),
        "num_problems": 0, "components": {},
        "final_checkpoint": f"checkpoints/{complete[-1].name}" if complete else None, "error": told,
    }, is_first=is_first)
    return 2


def _finish(rundir: RunDir, reporter: Reporter, result: dict[str, Any], *, is_first: bool) -> None:
    reporter.emit("finished", **result)
    reporter.close()
    if is_first:
        write_json(rundir.result, result)
