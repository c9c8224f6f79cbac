"""A reward model of real phases tells right from wrong sums that it has never seen, where its trunk can add them up."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from model_core.tasks.sums import Sums
from tests.model_core import forked


def write_sums(directory: Path) -> Path:
    """Sums of single digits. Of each also a pair: the demonstration, and the same with another digit in the place of the sum's last
    one; so that neither length nor form tells them apart, and every digit is as often right as wrong."""
    directory.mkdir()
    draw, rows = random.Random(0), dict[str, list[dict[str, Any]]](train=[], held_out=[])
    for split, row in Sums(Sums.Config(num_digits=1, story_fraction=1.0)).generate(0, 2000, 400):
        right = str(row["answer"])
        wrong = right[:-1] + draw.choice([digit for digit in "0123456789" if digit != right[-1]])
        rejected = row["completion"].removesuffix(right).replace(f"={right}", f"={wrong}") + wrong
        rows[split].append({**row, "chosen": row["completion"], "rejected": rejected})
    for split, found in rows.items():
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return directory


def trained(directory: Path, values: dict[str, Any], **paths: str) -> tuple[dict[str, Any], str]:
    """result.json of a run and its last checkpoint."""
    rundir = RunDir.create(directory, run=RunConfig.parse(values), paths=RunPaths(**paths))
    forked.run(["train", str(rundir.path)], output=rundir.log, seconds=200)
    result = rundir.read_result()
    assert result is not None and result["status"] == "succeeded", rundir.log.read_text()[-2000:]
    return result, str(rundir.complete_checkpoints()[-1])


@pytest.mark.slow
def test_it_orders_held_out_pairs_far_better_than_chance(tmp_path: Path) -> None:
    data = str(write_sums(tmp_path / "data"))
    begun, start = trained(tmp_path / "cold", {"phase": "cold_start", "phase_config": {"steps": 120}}, dataset=data)
    assert begun["accuracy"] > 0.9, "a trunk that cannot add has nothing to judge by"
    config = {"phase": "reward_model", "phase_config": {"steps": 200}, "held_out": {"num_problems": 400}}
    result, _checkpoint = trained(tmp_path / "judge", config, dataset=data, start_from=start)
    assert result["accuracy_before"] < 0.65 and result["num_problems"] == 400
    assert result["accuracy_low"] > 0.9, result["accuracy"]
