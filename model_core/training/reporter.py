"""What the trainer tells, from rank 0 only; on the others the same calls do nothing."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from typing import Any

from model_core.events import EventWriter
from model_core.rundir import RunDir


class Reporter:
    """Writes events.jsonl on the first rank."""

    def __init__(self, rundir: RunDir, *, is_first: bool) -> None:
        self._writer = EventWriter(rundir.events) if is_first else None
        self.started = time.monotonic()

    @property
    def process_seconds(self) -> float:
        """Seconds since the trainer began."""
        return time.monotonic() - self.started

    def emit(self, kind: str, **payload: Any) -> None:
        """One event of `model_core.events.KINDS`."""
        if self._writer:
            self._writer.emit(kind, **payload)

    def stage(self, stage: str, step: int) -> None:
        """Says what the trainer begins to do."""
        self.emit("stage", stage=stage, step=step)

    def progress(self, stage: str, step: int, total: int, *, seconds: float, done: float | None = None) -> None:
        """Says how far `stage` is; `seconds` is what the share `done` (default step / total) has taken."""
        fraction = step / total if done is None else done
        remaining = seconds * (1 - fraction) / fraction if fraction > 0 else None
        self.emit("progress", stage=stage, step=step, total=total, fraction=fraction, remaining_seconds=remaining)

    def close(self) -> None:
        """Makes sure that everything is on the disk."""
        if self._writer:
            self._writer.close()


def versions() -> dict[str, str]:
    """Versions that decide the numbers of a run."""
    names = ("torch", "deepspeed", "transformers", "tokenizers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
