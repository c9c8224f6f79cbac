"""A rank that is killed in mid-collective ends the others within a minute, also where it held a part of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from tests.model_core.phases.trained import BASE, Running, cold_start


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"pipeline": 2}, {"tensor": 2}], ids="-".join)
def test_a_killed_part_of_the_model_is_told(layout: dict[str, int], tmp_path: Path, dataset: Path) -> None:
    config = RunConfig.parse({**BASE, **cold_start(
        steps=100_000, parallel={"num_processes": 2, **layout}, phase_config={"optimizer": "adamw", "max_micro_tokens": 160})})
    rundir = RunDir.create(tmp_path / "run", run=config, paths=RunPaths(dataset=str(dataset)))
    with Running(rundir, num_processes=2, launcher=True) as running:
        running.until(lambda: running.has_told("experts"))
        running.rank(1).kill()
        ended = running.ended(seconds=60)
    error = ended.result["error"]
    assert ended.result["status"] == "failed" and error["type"] == "RankEnded", ended.output
    assert "Rank 1 ended" in error["message"]
