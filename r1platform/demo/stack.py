"""The platform that the demo talks to: the one that runs in this home, or one that it starts and can end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseTrouble
from django.db import connection

from r1platform.client import PlatformError
from r1platform.up.claims import is_up, ready_files


class Stack:
    """An `up` that runs already and is left running, or one of our own with its output in a file."""

    def __init__(self, *, port: int) -> None:
        self.port = port or free_port()
        self.home = Path(settings.R1_HOME)
        self.log = self.home / "logs" / "demo-up.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the demo started it, and therefore ends it."""
        return self._child is not None

    def start(self, *, seconds: float = 120) -> dict[str, Any]:
        """Finds or starts the platform and returns what it says of itself. Raises PlatformError."""
        found = self._running()
        if found is None:
            return self._start_anew(seconds)
        if not found["ready"]:
            found = self._wait_ready(lambda: self._running() or {}, seconds)
        return found | _links(found["base_url"])

    def stop(self, *, seconds: float = 90) -> None:
        """Ends our own as Ctrl-C does and waits. Raises PlatformError when it is still there after `seconds`."""
        if self._child is None or self._child.poll() is not None:
            return
        os.kill(self._child.pid, signal.SIGINT)
        deadline = time.monotonic() + seconds
        while self._child.poll() is None:
            if time.monotonic() > deadline:
                why = f"The platform (pid {self._child.pid}) did not end within {seconds:.0f} s; its log is {self.log}."
                raise PlatformError(why)
            with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                self._child.wait(timeout=1)

    def wait(self) -> None:
        """Blocks until our own ends; Ctrl-C here ends it in order."""
        if self._child is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self._child.wait()

    def _running(self) -> dict[str, Any] | None:
        """What the whole platform of this home wrote down, when there is one."""
        found = dict(ready_files(self.home)).get(self.home / "up.json")
        return found if found is not None and is_up(found) else None

    def _start_anew(self, seconds: float) -> dict[str, Any]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch(mode=0o600)
        self.log.chmod(0o600)  # `up` prints a sign-in link into it
        argv = [sys.executable, "manage.py", "up", "--port", str(self.port)]
        with self.log.open("wb") as log:
            child = subprocess.Popen(argv, cwd=settings.BASE_DIR, stdout=log, stderr=log, start_new_session=True)
        self._child = child

        def ours() -> dict[str, Any]:
            if child.poll() is not None:
                raise PlatformError(f"The platform did not start:\n{self._tail()}")
            found = self._running() or {}
            return found if found.get("pid") == child.pid else {}

        return self._wait_ready(ours, seconds)

    def _wait_ready(self, read: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not (found := read()).get("ready"):
            if time.monotonic() > deadline:
                raise PlatformError(f"The platform was not ready after {seconds:.0f} s; its logs are in {self.log.parent}.")
            time.sleep(0.2)
        return found

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _links(base_url: str) -> dict[str, str]:
    """New sign-in links of a platform that runs already; those of its start are used or somebody else's."""
    from r1platform.services import admin_ensure, sign_in_link_create  # needs the models; to start a platform needs none

    try:
        admin = admin_ensure()
        person, program = (sign_in_link_create(user=admin) for _ in range(2))
    except DatabaseTrouble as error:
        raise PlatformError(f"The platform at {base_url} runs, but its database does not answer: {error}") from None
    finally:
        connection.close()
    return {"url": base_url + person, "sign_in_path": program}
