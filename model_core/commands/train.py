"""Trains a run directory to its end: reads config.json, writes events.jsonl, checkpoints and, last, result.json.

A directory whose trainer was killed goes on from its newest checkpoint; one that has a result.json has ended and is
refused. Started bare for several processes it becomes DeepSpeed's launcher. SIGTERM or Ctrl-C ends it at the next step
with a checkpoint, a second one at once. Exit status 0: result.json says how it ended; 2: an error that the user can mend,
told as an event and in result.json; any other: the trainer broke, see stdout.log.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from model_core.config import RunConfig, RunPaths
from model_core.errors import ConfigError, ModelCoreError
from model_core.ranklog import mark_output
from model_core.rundir import RunDir, write_json

if TYPE_CHECKING:
    from model_core.training.reporter import Reporter
    from model_core.training.signals import StopSignals
    from model_core.training.world import World


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run directory is all it needs."""
    parser.add_argument("run_dir", help="directory with a config.json, see model_core/rundir.py")


def run(args: argparse.Namespace) -> int:
    """Trains; see the module for the exit status."""
    from model_core.training.reporter import Reporter

    rundir = RunDir(args.run_dir)
    _refuse_ended(rundir)
    try:
        config, paths = rundir.load()
    except ModelCoreError as error:
        if not rundir.path.is_dir():
            raise
        return _failed(rundir, Reporter(rundir, is_first=_rank() == 0), error, is_teller=_rank() == 0)
    if config.parallel.num_processes > 1 and "RANK" not in os.environ:
        _become_launcher(rundir, config)
    if config.parallel.num_processes > 1:
        mark_output(_rank())
    return _train(rundir, config, paths)


def _refuse_ended(rundir: RunDir) -> None:
    result = rundir.read_result()
    if result is None:
        return
    last = rundir.complete_checkpoints()[-1:]
    where = f'"{last[0]}"' if last else "a checkpoint"
    raise ConfigError(
        f"{rundir.path} has ended ({result.get('status')}, see result.json). To train on, make another directory whose "
        f"config.json has paths.resume_from = {where}; to train anew, leave that empty.", field="paths.resume_from",
    )


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _become_launcher(rundir: RunDir, config: RunConfig) -> None:
    from model_core.launch import command, environment

    num = config.parallel.num_processes
    argv = command(rundir.path, num_processes=num)
    os.execve(argv[0], argv,  # noqa: S606 (an argument list of ours, no shell)
              {**os.environ, **environment(num_processes=num)})


def _train(rundir: RunDir, config: RunConfig, paths: RunPaths) -> int:
    from model_core.training import failures
    from model_core.training import world as worlds
    from model_core.training.reporter import Reporter
    from model_core.training.signals import StopSignals

    signals, rank, world = StopSignals(), _rank(), None
    reporter = Reporter(rundir, is_first=rank == 0)
    failures.forget(rundir, rank)
    try:
        if rank == 0:
            failures.hold_space(rundir)
        reporter.stage("loading", 0)
        world = worlds.join()
        result = _run_phase(rundir, config, paths, world, reporter, signals)
        _finish(rundir, reporter, result, is_teller=rank == 0)
        failures.give_space(rundir)
    except failures.CAUGHT as error:
        failures.give_space(rundir)
        known = failures.explain(error, rundir, world, reporter)
        failures.note(rundir, rank, known or error, reporter)
        if known is None:
            reporter.last_words("error", type=type(error).__name__, message=str(error), field="", rank=rank,
                                stage=reporter.at_stage, step=reporter.at_step)
            raise
        is_heir = rank > 0 and isinstance(known, failures.RankEnded) and _is_heir(rundir, world)
        if is_heir:
            reporter = Reporter(rundir, is_first=True)
        return _failed(rundir, reporter, known, is_teller=rank == 0 or is_heir)
    return 0


def _is_heir(rundir: RunDir, world: World | None) -> bool:
    """Whether every earlier rank was killed before it could tell the end."""
    return world is not None and world.is_first_alive() and not rundir.result.exists()


def _run_phase(
    rundir: RunDir, config: RunConfig, paths: RunPaths, world: World, reporter: Reporter, signals: StopSignals
) -> dict[str, Any]:
    from model_core.phases import PHASES
    from model_core.training.frame import Context
    from model_core.training.start import check_machine, check_memory, resumed

    check_machine(config, world)
    context = Context(rundir, resumed(rundir, paths, world, reporter), world, reporter, signals)
    check_memory(config, context.paths, world)
    result: dict[str, Any] = PHASES.get(config.phase)().run(config, context)
    world.barrier()
    world.close()
    return result


def _failed(rundir: RunDir, reporter: Reporter, error: ModelCoreError, *, is_teller: bool) -> int:
    told = {"type": type(error).__name__, "message": error.message, "field": error.field}
    step = getattr(error, "step", reporter.at_step)
    reporter.last_words("error", **told, rank=getattr(error, "rank", 0), step=step,
                        stage=getattr(error, "stage", reporter.at_stage))
    complete = rundir.complete_checkpoints()
    print(f"{told['type']}: {error.message}", file=sys.stderr)
    result = {
        "status": "failed", "ended_by": "error", "reason": error.message, "steps": step, "tokens": 0,
        "seconds": reporter.process_seconds, "device_seconds": reporter.process_seconds,
        **dict.fromkeys((
            "accuracy_before", "accuracy", "accuracy_low", "accuracy_high", "quality_before", "quality", "quality_low",
            "quality_high")),
        "num_problems": 0, "components": {},
        "final_checkpoint": f"checkpoints/{complete[-1].name}" if complete else None, "error": told,
    }
    try:
        _finish(rundir, reporter, result, is_teller=is_teller)
    except OSError as full:
        print(f"result.json could not be written: {full}", file=sys.stderr)
    return 2


def _finish(rundir: RunDir, reporter: Reporter, result: dict[str, Any], *, is_teller: bool) -> None:
    reporter.last_words("finished", **result)
    reporter.close()
    if is_teller:
        write_json(rundir.result, result)
