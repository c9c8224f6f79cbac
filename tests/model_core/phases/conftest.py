"""Two-digit sums and runs that several tests look at."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from tests.model_core.phases.trained import BASE, Train, Trained, cold_start, execute, one_sum


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two_digit_sums")
    draw = random.Random(0)
    pairs = draw.sample([(a, b) for a in range(10, 100) for b in range(10, 100)], 260)
    for split, chosen in (("train", pairs[:200]), ("held_out", pairs[200:])):
        rows = [{"prompt": f"{a}+{b}=", "completion": f"<think>{a}+{b}={a + b}</think>{a + b}", "answer": str(a + b),
                 "task": "sums", "meta": {}} for a, b in chosen]
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Train:
    """Trains a configuration in a process of its own; keyword arguments are paths."""

    def run(values: dict[str, Any], *, stop: str = "", launcher: bool = False, **paths: str | None) -> Trained:
        config = RunConfig.parse({**BASE, **values})
        rundir = RunDir.create(tmp_path_factory.mktemp("run") / "run", run=config,
                               paths=RunPaths(**{"dataset": str(dataset), **paths}))
        if stop:
            rundir.ask_to_stop(stop)
        return execute(rundir, num_processes=config.parallel.num_processes, launcher=launcher)

    return run


@pytest.fixture(scope="session")
def started(train: Train) -> Trained:
    """A cold start with a checkpoint every three steps."""
    trained = train(cold_start(checkpoint={"every_steps": 3, "keep_last": 9}, held_out={
        **BASE["held_out"], "every_steps": 4, "num_problems_during": 8}), launcher=True)
    assert trained.status == 0, trained.output
    return trained


@pytest.fixture(scope="session")
def taught(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model that knows a single sum by heart: one that cannot add finds no right chain."""
    directory = one_sum(tmp_path_factory.mktemp("one_sum"), num_rows=1)
    trained = train(cold_start(steps=120, phase_config={"batch_size": 8}), dataset=str(directory))
    assert trained.status == 0, trained.output
    return trained
