"""What ended a trainer, as an error that the first rank can tell: of its own, of the machine, or of another rank.

A rank that fails writes `errors/rank_N.json` before it ends. The others feel only that a connection broke; they look who
wrote such a file, or whose process is gone.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from model_core.errors import MachineError, ModelCoreError, TrainingError
from model_core.rundir import RunDir, write_json
from model_core.training.reporter import Reporter
from model_core.training.world import World

CAUGHT = (ModelCoreError, OSError, RuntimeError, SafetensorError)
"""What `explain` is asked about; anything else is a mistake of ours, and its traceback in stdout.log says more."""
WAIT_SECONDS = 10.0
RESERVE, RESERVE_BYTES = ".reserve", 64 << 10
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SPACE_WORDS = ("no space left", "os error 28", "file too large", "os error 27", "pytorchstreamwriter", "inline_container")
_BROKEN_WORDS = ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe")


class NonFiniteLoss(TrainingError):
    """The loss became NaN or infinite; `rank` and `step` say where."""

    def __init__(self, rank: int, step: int) -> None:
        super().__init__(
            f"The loss of rank {rank} is not a finite number in step {step}. The last checkpoint is unharmed: resume "
            "from it with a lower learning rate, or a lower clip_norm."
        )
        self.rank, self.step = rank, step


class NonFiniteGradient(TrainingError):
    """Several updates in a row had to be skipped; `step` is that of the last."""

    def __init__(self, step: int, num_skipped: int) -> None:
        super().__init__(
            f"The gradient was not finite in {num_skipped} updates in a row, the last in step {step}; nothing is learnt any "
            "more. Resume from the last checkpoint with a lower learning rate, or with bfloat16 instead of float16."
        )
        self.step = step


class RankFailed(TrainingError):
    """Another rank ended with an error of its own, which the message repeats."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(
            f"Rank {told['rank']} failed in the stage {told['stage']}, step {told['step']}: {told['type']}: {told['message']}",
            field=told["field"],
        )
        self.rank, self.step, self.stage = told["rank"], told["step"], told["stage"]


class RankEnded(TrainingError):
    """Another rank's process is gone without a word."""

    def __init__(self, rank: int, *, stage: str, step: int) -> None:
        super().__init__(
            f"Rank {rank} ended without a word in the stage {stage}, step {step}: it was killed, perhaps for want of memory. "
            "stdout.log may say more. Resume from the last checkpoint."
        )
        self.rank, self.step, self.stage = rank, step, stage


def explain(error: BaseException, rundir: RunDir, world: World | None, reporter: Reporter) -> ModelCoreError | None:
    """The error that says in a sentence what ended this rank; None when it is none that a user can mend."""
    if isinstance(error, ModelCoreError):
        return error
    known: ModelCoreError | None = machine_error(error, rundir.path)
    if known is None and world is not None and world.size > 1 and is_broken_connection(error):
        known = _of_another(rundir, world, reporter)
    return known


def is_broken_connection(error: BaseException) -> bool:
    """Whether the error says that another rank no longer answers."""
    return isinstance(error, RuntimeError | OSError) and any(word in str(error).lower() for word in _BROKEN_WORDS)


def machine_error(error: BaseException, place: Path) -> MachineError | None:
    """The error of the machine that `error` is; None when it is another."""
    text = str(error).lower()
    if is_disk_full(error):
        return MachineError(f"The disk is full: {_size(free_bytes(place))} are free at {place}. Free some space, or set "
                            "checkpoint.keep_last lower, and resume the run.", field="checkpoint.keep_last")
    if "out of memory" in text or "can't allocate memory" in text:
        return MachineError(
            "The device has too little memory. Lower max_micro_tokens or the batch, or turn gradient checkpointing on, "
            "and resume the run.", field="phase_config.max_micro_tokens",
        )
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space; torch and safetensors say it only in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_SPACE
    return isinstance(error, OSError | RuntimeError | SafetensorError) and any(w in str(error).lower() for w in _NO_SPACE_WORDS)


def checkpoint_does_not_fit(place: Path, *, step: int, needed: int) -> MachineError:
    """The error of a checkpoint that found no space, when what it had written is removed again."""
    return MachineError(
        f"The disk is full: the checkpoint of step {step} needs about {_size(needed)}, and {_size(free_bytes(place))} are free "
        f"at {place}. The older checkpoints are unharmed. Free some space, or set checkpoint.keep_last lower, and resume the "
        "run.", field="checkpoint.keep_last",
    )


def free_bytes(place: Path) -> int:
    """Bytes that may still be written at `place`."""
    return shutil.disk_usage(place).free


def hold_space(rundir: RunDir) -> None:
    """Keeps some space for what has to be said when the disk is full."""
    with (rundir.path / RESERVE).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def give_space(rundir: RunDir) -> None:
    """Gives it back, so that it can be said."""
    (rundir.path / RESERVE).unlink(missing_ok=True)


def note(rundir: RunDir, rank: int, error: BaseException, reporter: Reporter) -> None:
    """Writes down for the first rank why this one ends, or which other one it saw end."""
    told = {
        "type": type(error).__name__, "message": str(error), "field": getattr(error, "field", ""),
        "rank": getattr(error, "rank", rank), "stage": reporter.at_stage, "step": reporter.at_step,
    }
    with suppress(OSError):  # on a full disk the first rank still sees that this one is gone
        rundir.errors.mkdir(exist_ok=True)
        write_json(rundir.errors / f"rank_{rank}.json", told)


def forget(rundir: RunDir, rank: int) -> None:
    """Removes what this rank wrote down in an earlier start."""
    (rundir.errors / f"rank_{rank}.json").unlink(missing_ok=True)


def _of_another(rundir: RunDir, world: World, reporter: Reporter) -> TrainingError:
    """Who broke the connection; a rank that fails is given a moment to write it down or to be gone."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for rank in (rank for rank in range(world.size) if rank != world.rank):
            is_alive, path = world.is_alive(rank), rundir.errors / f"rank_{rank}.json"
            told = json.loads(path.read_text()) if path.is_file() else None
            if told is not None and told["type"] == RankEnded.__name__:
                return RankEnded(told["rank"], stage=told["stage"], step=told["step"])
            if told is not None and told["type"] != RankFailed.__name__:
                return RankFailed(told)
            if told is None and not is_alive:
                return RankEnded(rank, stage=reporter.at_stage, step=reporter.at_step)
        time.sleep(0.1)
    return TrainingError(f"The connection to another rank broke in the stage {reporter.at_stage}, step {reporter.at_step}, "
                         "and none says why. stdout.log may say more. Resume from the last checkpoint.")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
