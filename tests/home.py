"""A pytest plugin that is loaded first: gives each process of the run a home of its own, before the settings are read.

Run directories follow from the ids of rows, and every worker of a parallel run has a database of its own, so that two
workers in one home would write into each other's runs. Servers are started by the fixtures of conftest.py when a test
first needs them, and ended here.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

gc.disable()
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

_MARK = "R1_TEST_HOME"
if _MARK not in os.environ:
    os.environ[_MARK] = tempfile.mkdtemp(prefix="r1-test-")
WHOLE = Path(os.environ[_MARK])
HOME = WHOLE / os.environ.get("PYTEST_XDIST_WORKER", "main")
HOME.mkdir(exist_ok=True)
os.environ["R1_HOME"] = str(HOME)
os.environ["REDIS_URL"] = "memory://"
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """What was loaded and collected stays to the end: looking through it again and again was a third of the collection's time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the servers of this process; the controller of a parallel run also those of a worker that died."""
    is_worker = hasattr(config, "workerinput")
    for home in [HOME] if is_worker else sorted(WHOLE.iterdir()):
        _end_servers(home)
    if not is_worker:
        shutil.rmtree(WHOLE, ignore_errors=True)


def _end_servers(home: Path) -> None:
    from r1platform.lib.embedded import Postgres, Redis

    for server in (Postgres(home), Redis(home)):
        server.stop(seconds=5)
