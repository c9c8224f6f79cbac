"""A platform of a test's own, started by `up` in its own home, and ended with the proof that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from r1platform.client import Client, PlatformError
from r1platform.demo.stack import free_port

ROOT = Path(__file__).parents[2]


class Platform:
    """What `up` wrote down about itself; `api` is signed in by the link for programs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = Client.by_link(self.read()["base_url"], self.read()["sign_in_path"])

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return found


@contextmanager
def running(home: Path) -> Iterator[Platform]:
    """A ready platform in `home`; at the end Ctrl-C, and no process of this home may be left."""
    env = {k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}}
    env |= {"R1_HOME": str(home), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "manage.py", "up", "--port", str(free_port())]
    with (home / "up.out").open("wb") as out:
        child = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        until(lambda: (home / "up.json").exists() and json.loads((home / "up.json").read_text())["ready"])
        platform = Platform(home)
        yield platform
        platform.api.close()
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(120) == 0, (home / "up.out").read_text()[-3000:]
    left = [process for process in psutil.process_iter(["pid"]) if home_of(process) == str(home)]
    assert not left, left


def until(condition: Callable[[], Any], *, seconds: float = 90.0) -> Any:
    """What `condition` returns once it is true; an answer that the web owes us is waited for too."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except (OSError, PlatformError, httpx.HTTPError):
            pass  # the web was killed a moment ago
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)


def home_of(process: psutil.Process) -> str:
    """R1_HOME of a process, empty when it has none or has ended."""
    try:
        return process.environ().get("R1_HOME", "")
    except psutil.Error:
        return ""


def events(api: Client, run: int) -> list[dict[str, Any]]:
    """Every event of the run, page by page."""
    found: list[dict[str, Any]] = []
    after = 0
    while page := api.get(f"runs/{run}/events/", after=after, limit=1000)["events"]:
        found += page
        after = page[-1]["id"]
    return found
