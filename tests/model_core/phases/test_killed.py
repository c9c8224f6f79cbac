"""A trainer that is killed without a word, in the middle of writing, leaves a checkpoint from which another goes on as if
nothing had been."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from tests.model_core.phases.trained import BASE, Running, Train, cold_start, execute

CONFIG = cold_start(steps=60, checkpoint={"every_steps": 20, "keep_best": 0, "every_seconds": 0.0}, **BASE)


def test_a_trainer_killed_in_mid_write_goes_on_bitwise_from_its_last_whole_checkpoint(
    train: Train, dataset: Path, tmp_path: Path
) -> None:
    rundir = RunDir.create(tmp_path / "run", run=RunConfig.parse(CONFIG), paths=RunPaths(dataset=str(dataset)))
    part = rundir.checkpoints / "part_00000040"
    with Running(rundir) as running:
        running.until(lambda: running.has_told("started"))
        (part / "state").mkdir(parents=True)
        os.mkfifo(part / "state" / "trainer.json")  # nobody reads it: writing never ends
        running.until(lambda: rundir.events.read_text().count('"kind": "progress"') > 45)  # the steps do not wait for it
        os.kill(running.pid, signal.SIGKILL)
        assert running.process.status(60) == -signal.SIGKILL
    assert (part / "state" / "rank_00000.safetensors").is_file()
    assert rundir.read_result() is None and rundir.complete_checkpoints() == [rundir.checkpoint(20)]
    again, whole = execute(rundir), train(CONFIG)
    assert again.status == whole.status == 0, again.output
    assert again.series("loss")[-40:] == whole.series("loss")[20:]
    assert again.result["quality"] == whole.result["quality"]
    assert not part.exists()
