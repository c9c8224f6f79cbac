"""The platform that the demo talks to: the one that runs in this home, or one that it starts and can end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings

from r1platform.demo.client import DemoError


class Stack:
    """`up` as a child with its output in a file."""

    def __init__(self, *, port: int) -> None:
        self.port = port or free_port()
        self.log = Path(settings.R1_HOME) / "logs" / "demo-up.log"
        self._ready = Path(settings.R1_HOME) / "up.json"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 120) -> dict[str, Any]:
        """Starts `up` and returns its ready file. Raises DemoError with the last lines it printed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "manage.py", "up", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(argv, cwd=settings.BASE_DIR, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise DemoError(f"The platform did not start:\n{self._tail()}")
            found = self._read()
            if found and found.get("pid") == self._child.pid and found.get("ready"):
                return found
            time.sleep(0.2)
        self.stop()
        raise DemoError(f"The platform was not ready after {seconds:.0f} s:\n{self._tail()}")

    def stop(self, *, seconds: float = 90) -> None:
        """Ends it as Ctrl-C does and waits. Raises DemoError when it is still there after `seconds`."""
        if self._child is None or self._child.poll() is not None:
            return
        os.kill(self._child.pid, signal.SIGINT)
        try:
            self._child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise DemoError(f"The platform (pid {self._child.pid}) did not end within {seconds:.0f} s.") from None

    def wait(self) -> None:
        """Blocks until it ends; Ctrl-C here ends it in order."""
        assert self._child is not None
        try:
            self._child.wait()
        except KeyboardInterrupt:
            self.stop()

    def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._ready.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
