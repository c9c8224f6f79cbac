"""Writing the checkpoints of a running phase beside the training: a step waits only until its state is copied.

Each rank writes what it owns in a thread of its own. When all have, which is seen at a step boundary, the first rank puts
the model together from what was written, seals and names the checkpoint; at the next boundary it is told. At most one is
under way. What is on the disk and how it is verified is in `checkpoints` and `stored`; when to save is decided by `frame`.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from transformers import PreTrainedTokenizerFast

from model_core.config import RunConfig
from model_core.errors import CheckpointError
from model_core.rundir import RunDir
from model_core.training import checkpoints
from model_core.training.background import Background
from model_core.training.engine import TrainingEngine
from model_core.training.failures import CAUGHT, checkpoint_does_not_fit, is_disk_full
from model_core.training.families import Shape, family_of
from model_core.training.reporter import Reporter
from model_core.training.stored import Snapshot, StoredState, WholeWeights, file_of
from model_core.training.world import World

SHARE_OF_TIME = 0.02
"""Checkpoints that are due by the clock are written in at most this share of a run's time."""
TRAINER = "trainer.json"


@dataclass
class Counters:
    """What a resumed attempt must know besides weights and optimizer."""

    step: int = 0
    tokens: int = 0
    device_seconds: float = 0.0
    before: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Moment:
    """What a checkpoint is of."""

    directory: Path
    snapshot: Snapshot
    texts: dict[str, str | bytes]
    metadata: dict[str, Any]
    needed_bytes: int

    @property
    def part(self) -> Path:
        """Where it is until it is whole."""
        return self.directory.with_name(self.directory.name.replace("step_", "part_"))


@dataclass
class _Write:
    """A checkpoint under way."""

    moment: _Moment
    job: Background
    is_sealing: bool
    seconds: float = 0.0


class Saver:
    """Writes the checkpoints of one run; all ranks call it alike. Around the steps it is entered: see `__exit__`."""

    def __init__(
        self, rundir: RunDir, config: RunConfig, engine: TrainingEngine, model_config: Shape,
        tokenizer: PreTrainedTokenizerFast, reporter: Reporter, world: World,
    ) -> None:
        self._rundir, self._config, self._engine, self._world = rundir, config, engine, world
        self._model_config, self._family, self._reporter = model_config, family_of(model_config), reporter
        # One that encodes in another thread at the same moment refuses to be written.
        self._tokenizer = copy.deepcopy(tokenizer) if world.is_first else tokenizer
        self._write: _Write | None = None
        self._saved_at, self._took = time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Whether the clock asks for a checkpoint: rarer than `every_seconds` when writing one takes long."""
        every = self._config.checkpoint.every_seconds
        is_time = time.monotonic() - self._saved_at >= max(every, self._took / SHARE_OF_TIME)
        return bool(every) and is_time and self._write is None

    def save(self, counters: Counters, *, metrics: dict[str, Any], extra_state: Mapping[str, str | bytes]) -> Path:
        """Begins a checkpoint of this moment, when the one before is done, and returns its name to be.

        Raises what `advance` raises, of the one before.
        """
        self.settle()
        self._reporter.stage("saving", counters.step)
        self._saved_at = time.monotonic()
        trainer = {"counters": asdict(counters), "scale": self._engine.state.scale()}
        snapshot = self._engine.state.snapshot()
        moment = _Moment(
            self._rundir.checkpoint(counters.step), snapshot, {TRAINER: json.dumps(trainer), **extra_state},
            {"step": counters.step, "phase": self._config.phase, "tokens": counters.tokens, "metrics": metrics,
             "model_config": self._model_config.resolved(), "layout": self._engine.layout, "is_final": False},
            needed_bytes=snapshot.num_bytes * self._world.size + 4 * self._family.count(self._model_config)[0],
        )
        is_alone = self._world.size == 1
        job = Background(lambda: self._seal(moment, self._write_own(moment)) if is_alone else self._write_own(moment))
        self._write = _Write(moment, job, is_sealing=is_alone)
        return moment.directory

    def advance(self) -> None:
        """Helps a checkpoint under way on, without waiting: has it sealed once all ranks wrote theirs, then tells it.

        Raises MachineError when the disk is full, and whatever else went wrong in writing.
        """
        write = self._write
        if write is None:
            return
        everybody = self._world.gather(self._result(write) if write.job.is_done else None)
        if write.is_sealing and everybody[0] is not None:
            self._write, self._took = None, write.seconds + write.job.seconds
            if self._world.is_first:
                self._tell(write.moment.directory, *everybody[0])
        elif not write.is_sealing and None not in everybody:
            write.is_sealing, write.seconds = True, write.job.seconds
            if self._world.is_first:
                hashes = {name: value for own in everybody for name, value in own.items()}
                write.job = Background(lambda: self._seal(write.moment, hashes))

    def settle(self) -> None:
        """Waits until no checkpoint is under way. Raises what `advance` raises."""
        while self._write is not None:
            self._write.job.error()  # waits for this rank's; the others are waited for where all meet
            self.advance()

    def finish(self, directory: Path, metrics: dict[str, Any]) -> None:
        """Marks the last checkpoint as such, with what was measured on it since it was written."""
        if self._world.is_first:
            metadata = checkpoints.amend(directory, metrics=metrics, is_final=True)
            self._tell(directory, metadata, checkpoints.prune(self._rundir, self._config.checkpoint, keep=directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        """When a step fails, a checkpoint under way is still finished, but for that of several ranks, who may not all have
        failed. A disk that is full is told as the checkpoint's failure where that filled it."""
        if error is None or self._write is None:
            return
        if is_disk_full(error):
            self._result(self._write)
        elif self._world.size == 1:
            with suppress(*CAUGHT):
                self.settle()

    def _result(self, write: _Write) -> Any:
        """What the job gave, when it is done. Raises what `advance` raises."""
        error, moment = write.job.error(), write.moment
        if error is None:
            return write.job.result()
        self._write = None
        self._reporter.stage("saving", moment.metadata["step"])
        if not is_disk_full(error):
            raise error
        raise checkpoint_does_not_fit(
            self._rundir.checkpoints, step=moment.metadata["step"], needed=moment.needed_bytes
        )

    def _write_own(self, moment: _Moment) -> dict[str, str]:
        """Writes what this rank owns; the first one also what is the same for all. Returns the hashes."""
        state = moment.part / "state"
        with self._nothing_left(moment):
            state.mkdir(parents=True, exist_ok=True)
            files = [moment.snapshot.write(state, self._world.rank)]
            moment.snapshot.tensors.clear()  # their memory is free from here on
            if self._world.is_first:
                for name, text in moment.texts.items():
                    (state / name).write_bytes(text if isinstance(text, bytes) else text.encode())
                files += [state / name for name in moment.texts]
            return {str(path.relative_to(moment.part)): checkpoints.keep_file(path) for path in files}

    def _seal(self, moment: _Moment, hashes: Mapping[str, str]) -> tuple[dict[str, Any], list[int]]:
        """Puts the model together from what all ranks wrote, and names the checkpoint. Returns its metadata, and the steps
        of older ones that were removed."""
        with self._nothing_left(moment):
            weights = WholeWeights(StoredState(moment.part / "state"))
            self._family.export(weights, self._model_config, moment.part / "model", self._tokenizer)
            metadata = checkpoints.seal(moment.part, moment.metadata, known=hashes)
        checkpoints.publish(moment.part, moment.directory)
        return metadata, checkpoints.prune(self._rundir, self._config.checkpoint, keep=moment.directory)

    @contextmanager
    def _nothing_left(self, moment: _Moment) -> Iterator[None]:
        """Gives the space back when writing fails: the first rank all of it, another its own file."""
        try:
            yield
        except CAUGHT:
            if self._world.is_first:
                shutil.rmtree(moment.part, ignore_errors=True)
            else:
                (moment.part / "state" / file_of(self._world.rank)).unlink(missing_ok=True)
            raise

    def _tell(self, directory: Path, metadata: dict[str, Any], removed: list[int]) -> None:
        self._reporter.emit(
            "checkpoint", step=metadata["step"], path=f"checkpoints/{directory.name}", metrics=metadata["metrics"],
            size_bytes=metadata["size_bytes"], sha256=metadata["sha256"], is_final=metadata["is_final"],
        )
        for step in removed:
            self._reporter.emit("checkpoint_removed", step=step)


def read_trainer(state: Path) -> tuple[Counters, dict[str, float]]:
    """The counters and the scale of the loss of a stored state. Raises CheckpointError."""
    try:
        stored = json.loads((state / TRAINER).read_text())
        return Counters(**stored["counters"]), stored["scale"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{state} has no readable {TRAINER} ({error}). Choose another checkpoint, or start a new run from "
                              "it.") from error
