"""`manage.py` as a person runs it, in a home of its own and with the disk that a test wants."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)


def run(*words: str, home: Path, full_disk: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """`manage.py` with these words; on a full disk every written byte is refused."""

    def nothing_fits() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    kept = {key: value for key, value in os.environ.items() if key not in {"DATABASE_URL", "REDIS_URL", "R1_TEST_HOME"}}
    return subprocess.run(
        [sys.executable, "-B", "manage.py", *words],
        cwd=ROOT, env=kept | {"R1_HOME": str(home)} | environment, capture_output=True, text=True, timeout=60,
        preexec_fn=nothing_fits if full_disk else None,
    )  # fmt: skip


def sentence_of(done: subprocess.CompletedProcess[str]) -> str:
    """What was said; one line, exit code 1, nothing of Python's."""
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]
