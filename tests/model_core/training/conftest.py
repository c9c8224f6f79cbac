"""Training in this process, for the tests beside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_core.training.in_process import Attempt, attempts


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Attempt]:
    with attempts(monkeypatch, tmp_path) as make:
        yield make
