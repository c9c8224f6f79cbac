"""A pytest plugin that is loaded first: gives the run a home of its own, before the settings are read.

Servers are started by the fixtures of conftest.py when a test first needs them, and ended here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_MARK = "R1_TEST_HOME"
if _MARK not in os.environ:
    os.environ[_MARK] = tempfile.mkdtemp(prefix="r1-test-")
HOME = Path(os.environ[_MARK])
os.environ["R1_HOME"] = str(HOME)
os.environ["REDIS_URL"] = "memory://"
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the servers of this run; workers of a parallel run leave it to their controller."""
    if hasattr(config, "workerinput"):
        return
    from r1platform.lib.embedded import Postgres, Redis

    for server in (Postgres(HOME), Redis(HOME)):
        server.stop(seconds=5)
    shutil.rmtree(HOME, ignore_errors=True)
