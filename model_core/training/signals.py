"""SIGTERM and Ctrl-C: the first asks the run to end at its next step with a checkpoint, a later one kills as ever."""

from __future__ import annotations

import signal
import time
from types import FrameType

SAME_ASK_SECONDS = 1.0
"""A terminal signals the launcher and the trainers, and the launcher passes it on: so soon it is the same ask."""


class StopSignals:
    """Takes the signals over when it is made; `received` names the first one, and is empty before."""

    def __init__(self) -> None:
        self.received = ""
        self._at = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.received and time.monotonic() - self._at > SAME_ASK_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not self.received:
            self.received, self._at = signal.Signals(number).name, time.monotonic()
