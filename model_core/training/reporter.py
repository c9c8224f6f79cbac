"""What the trainer tells, from rank 0 only; on the others the same calls only remember where they are."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
from contextlib import suppress
from typing import Any

from model_core.events import EventWriter
from model_core.rundir import RunDir
from model_core.training.telling import Teller


class Reporter:
    """Writes events.jsonl on the first rank, and lines for people to its output.

    `at_stage` and `at_step` say on every rank what is being done.
    """

    def __init__(self, rundir: RunDir, *, is_first: bool) -> None:
        self._writer = EventWriter(rundir.events) if is_first else None
        self._teller = Teller(_say)
        self.started = time.monotonic()
        self.at_stage, self.at_step = "loading", 0

    @property
    def process_seconds(self) -> float:
        """Seconds since the trainer began."""
        return time.monotonic() - self.started

    def emit(self, kind: str, **payload: Any) -> None:
        """One event of `model_core.events.KINDS`."""
        if self._writer:
            self._writer.emit(kind, **payload)
            self._teller.tell(kind, payload)

    def stage(self, stage: str, step: int) -> None:
        """Says what the trainer begins to do."""
        self.at_stage, self.at_step = stage, step
        self.emit("stage", stage=stage, step=step)

    def progress(
        self, stage: str, step: int, total: int, *, seconds: float, fraction: float | None = None, began_at: float = 0.0
    ) -> None:
        """Says how far `stage` is: `fraction` of it, by default step / total; `seconds` took it there from `began_at`."""
        self.at_step = step
        fraction = step / total if fraction is None else fraction
        gone = fraction - began_at
        remaining = seconds * (1 - fraction) / gone if gone > 0 else None
        self.emit("progress", stage=stage, step=step, total=total, fraction=fraction, remaining_seconds=remaining)

    def last_words(self, kind: str, **payload: Any) -> None:
        """Like `emit`, when the disk may be full: result.json says the same in fewer bytes."""
        with suppress(OSError):
            self.emit(kind, **payload)

    def close(self) -> None:
        """Makes sure that everything is on the disk."""
        if self._writer:
            with suppress(OSError):
                self._writer.close()
            self._writer = None  # what is told after the end, when result.json does not fit, has no place any more


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def versions() -> dict[str, str]:
    """Versions that decide the numbers of a run."""
    names = ("torch", "deepspeed", "transformers", "tokenizers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
