"""Programs to be measured against that are no part of the platform: each lives in an environment of its own.

It is made the first time, under `var/peers/NAME` or the directory that R1_BENCH_PEERS names, with exactly the versions below.
What runs there is in the benchmark's own file, called with the peer's interpreter: such a part imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "mlflow": ("mlflow==3.17.2", "psycopg2-binary==2.9.13"),
    "tensorboard": ("tensorboard==2.21.0", "setuptools==80.9.0"),
    "litellm": ("litellm[proxy]==1.106.12",),
}
READY_SECONDS = 120


def python_of(peer: str) -> str:
    """The interpreter that has this peer. Installs it when it is not there."""
    home = Path(os.environ.get("R1_BENCH_PEERS") or ROOT / "var" / "peers") / peer
    mark, wanted = home / "installed", "\n".join(PACKAGES[peer])
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[peer]], check=True)
        mark.write_text(wanted)
    return str(home / "bin" / "python")


def versions_of(*peers: str) -> dict[str, str]:
    """Of each package of these peers."""
    return dict(package.split("==") for peer in peers for package in PACKAGES[peer][:1])  # type: ignore[misc]


@contextmanager
def serving(argv: list[str], url: str, **options: Any) -> Iterator[None]:
    """Runs a server while the block runs; it begins when `url` answers."""
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(url):
            assert child.poll() is None, f"{' '.join(argv)} ended at once"
            assert time.monotonic() < deadline, f"{url} did not answer"
            time.sleep(0.2)
        yield
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the group of a server, firmly where it does not go by itself: nothing of it is kept."""
    os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False
