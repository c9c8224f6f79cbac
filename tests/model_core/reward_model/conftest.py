"""Training in this process, and one reward model that has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_core.reward_model.judges import Judging
from tests.model_core.training.in_process import Attempt, attempts


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Attempt]:
    with attempts(monkeypatch, tmp_path) as make:
        yield make


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Judging:
    """A reward model with a checkpoint after 6 of 12 steps, and at the end."""
    with pytest.MonkeyPatch.context() as patch, attempts(patch, tmp_path_factory.mktemp("judge")) as make:
        judging = Judging(make, checkpoint={"every_steps": 6, "keep_last": 9}, held_out={"num_problems": 12})
        judging.train()
    return judging
