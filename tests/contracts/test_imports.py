"""The one-way imports of docs/architecture.md, as pyproject.toml states them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from django.conf import settings


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=settings.BASE_DIR, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
