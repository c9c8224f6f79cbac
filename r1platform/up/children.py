"""One child process of `up`: started in its own session, its log shown with a prefix, started again when it dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from r1platform.lib import processes
from r1platform.lib.processes import ProcessRef
from r1platform.lib.tail import LineTooLong, read_lines

MAX_LOG_BYTES = 20 << 20
STEADY_SECONDS = 30.0
MAX_WAIT_SECONDS = 30.0
_COLOURS = {"web": 36, "worker": 33, "beat": 35, "postgres": 34, "redis": 31, "up": 32}
Say = Callable[[str, str], None]


def say(name: str, line: str) -> None:
    """Prints a line under the coloured name of who says it."""
    label = f"{name:>8} │"
    colour = _COLOURS.get(name, 37)
    sys.stdout.write(f"\x1b[{colour}m{label}\x1b[0m {line}\n" if sys.stdout.isatty() else f"{label} {line}\n")
    sys.stdout.flush()


@dataclass
class Child:
    """What to run and how it is doing; `ref` is None while it is not running."""

    name: str
    argv: list[str]
    home: Path
    cwd: Path
    grace_seconds: float
    ref: ProcessRef | None = None
    _offset: int = 0
    _deaths: int = 0
    _started: float = 0.0
    _again_at: float = field(default=0.0)

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Starts it; its output goes to its log, so that it lives on when `up` is killed."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        self._started = time.monotonic()
        self.ref = processes.spawn(self.argv, cwd=self.cwd, env=dict(os.environ), log=self.log)

    def show(self, out: Say) -> None:
        """Prints what it wrote since the last time."""
        try:
            lines, self._offset = read_lines(self.log, self._offset)
        except LineTooLong:
            self._offset = self.log.stat().st_size
            return
        for line in lines:
            out(self.name, line.decode(errors="replace"))

    def watch(self, out: Say) -> bool:
        """Starts it again when it died unasked, later and later if it keeps dying. Says whether `ref` changed."""
        self.show(out)
        if self.ref is not None:
            if processes.is_alive(self.ref):
                return False
            code = processes.exit_code(self.ref)
            processes.stop_group(self.ref, grace_seconds=1)
            self._deaths = 0 if time.monotonic() - self._started > STEADY_SECONDS else self._deaths + 1
            wait = min(MAX_WAIT_SECONDS, 0.0 if self._deaths <= 1 else 2.0 ** (self._deaths - 2))
            self._again_at = time.monotonic() + wait
            when = f"in {wait:.0f} s" if wait else "now"
            out("up", f"{self.name} ended unasked ({describe(code)}); it is started again {when}. Its log is {self.log}.")
            self.ref = None
        if time.monotonic() < self._again_at:
            return False
        self.start()
        return True

    def stop(self) -> bool:
        """Ends it and what it started in its session; says whether all is gone."""
        if self.ref is None:
            return True
        gone = processes.stop_group(self.ref, grace_seconds=self.grace_seconds)
        if gone:
            self.ref = None
        return gone


def describe(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "exit code unknown"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
