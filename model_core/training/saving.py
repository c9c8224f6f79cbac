"""Writing one checkpoint of a running phase: every rank its state, the first one the model; then it is sealed and named.

What is on the disk and how it is verified is in `checkpoints`; when to save is decided by `frame`.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model_core.config import ModelConfig, RunConfig
from model_core.model import export_state
from model_core.rundir import RunDir
from model_core.training import checkpoints
from model_core.training.engine import TrainingEngine
from model_core.training.failures import checkpoint_does_not_fit, is_disk_full
from model_core.training.reporter import Reporter
from model_core.training.weights import whole_state
from model_core.training.world import World

SHARE_OF_TIME = 0.02
"""Checkpoints that are due by the clock take at most this share of a run's time."""


@dataclass
class Counters:
    """What a resumed attempt must know besides weights and optimizer."""

    step: int = 0
    tokens: int = 0
    device_seconds: float = 0.0
    before: dict[str, Any] | None = None


class Saver:
    """Writes the checkpoints of one run; all ranks call it alike."""

    def __init__(
        self, rundir: RunDir, config: RunConfig, engine: TrainingEngine, model_config: ModelConfig,
        tokenizer: PreTrainedTokenizerFast, reporter: Reporter, world: World,
    ) -> None:
        self._rundir, self._config, self._engine, self._world = rundir, config, engine, world
        self._model_config, self._tokenizer, self._reporter = model_config, tokenizer, reporter
        self._saved_at, self._took = time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Whether the clock asks for a checkpoint: rarer than `every_seconds` when writing one takes long."""
        every = self._config.checkpoint.every_seconds
        return bool(every) and time.monotonic() - self._saved_at >= max(every, self._took / SHARE_OF_TIME)

    def save(self, counters: Counters, *, metrics: dict[str, Any], extra_state: dict[str, str]) -> Path:
        """Writes a checkpoint of this moment and thins out the older ones.

        Raises MachineError when the disk is full; the first rank then removes what was written of it.
        """
        began, directory = time.monotonic(), self._rundir.checkpoint(counters.step)
        part = directory.with_name(directory.name.replace("step_", "part_"))
        self._reporter.stage("saving", counters.step)
        fits = True
        try:
            self._write(part, directory, counters, metrics, extra_state)
        except (OSError, RuntimeError, SafetensorError) as error:
            if not is_disk_full(error):
                raise
            fits = False
        if not fits:  # outside of the handler, where the error no longer holds files open that keep their space
            if self._world.is_first:  # another rank must not take away what the first one is still writing
                shutil.rmtree(part, ignore_errors=True)
            raise checkpoint_does_not_fit(
                self._rundir.checkpoints, step=counters.step, needed=self._engine.state_bytes()
            )
        self._world.barrier()
        self._saved_at = time.monotonic()
        self._took = self._saved_at - began
        return directory

    def finish(self, directory: Path, metrics: dict[str, Any]) -> None:
        """Marks the last checkpoint as such, with what was measured on it since it was written."""
        if self._world.is_first:
            self._tell(directory, checkpoints.amend(directory, metrics=metrics, is_final=True))

    def _write(
        self, part: Path, directory: Path, counters: Counters, metrics: dict[str, Any], extra_state: dict[str, str]
    ) -> None:
        if self._world.is_first:
            shutil.rmtree(part, ignore_errors=True)
            (part / "state").mkdir(parents=True)
        self._world.barrier()
        self._engine.save(part / "state", asdict(counters))
        state = whole_state(self._engine.module)
        self._world.barrier()
        if not self._world.is_first:
            return
        for name, text in extra_state.items():
            (part / "state" / name).write_text(text)
        self._write_model(part / "model", state)
        metadata = checkpoints.seal(part, {
            "step": counters.step, "phase": self._config.phase, "tokens": counters.tokens, "metrics": metrics,
            "model_config": self._model_config.resolved(), "layout": self._engine.layout, "is_final": False,
        })
        checkpoints.publish(part, directory)
        self._tell(directory, metadata)

    def _write_model(self, directory: Path, state: dict[str, Tensor]) -> None:
        on_cpu = {name: tensor.detach().float().cpu() for name, tensor in state.items()}
        export_state(on_cpu, self._model_config, directory, self._tokenizer)

    def _tell(self, directory: Path, metadata: dict[str, Any]) -> None:
        self._reporter.emit(
            "checkpoint", step=metadata["step"], path=f"checkpoints/{directory.name}", metrics=metadata["metrics"],
            size_bytes=metadata["size_bytes"], sha256=metadata["sha256"], is_final=metadata["is_final"],
        )
        for step in checkpoints.prune(self._rundir, self._config.checkpoint, keep=directory):
            self._reporter.emit("checkpoint_removed", step=step)
