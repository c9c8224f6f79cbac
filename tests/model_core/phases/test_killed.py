"""A trainer that is killed without a word leaves a checkpoint from which another goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from tests.model_core.phases.trained import BASE, Running, Train, cold_start, execute

CONFIG = cold_start(steps=200, checkpoint={"every_seconds": 0.05}, **BASE)


def test_a_killed_trainer_goes_on_bitwise_from_its_last_whole_checkpoint(train: Train, dataset: Path, tmp_path: Path) -> None:
    rundir = RunDir.create(tmp_path / "run", run=RunConfig.parse(CONFIG), paths=RunPaths(dataset=str(dataset)))
    with Running(rundir) as running:
        running.until(rundir.complete_checkpoints)
        os.killpg(running.process.pid, signal.SIGKILL)
        assert running.process.wait() == -signal.SIGKILL
    assert rundir.read_result() is None
    last = rundir.complete_checkpoints()[-1]
    step = int(last.name.removeprefix("step_"))
    assert 0 < step < 200
    elsewhere, whole = train(CONFIG, resume_from=str(last)), train(CONFIG)
    assert elsewhere.status == whole.status == 0, elsewhere.output
    assert elsewhere.series("loss") == whole.series("loss")[step:]
    assert elsewhere.result["quality"] == whole.result["quality"]
    again = execute(rundir)
    assert again.status == 0, again.output
    assert again.series("loss")[-(200 - step):] == whole.series("loss")[step:]
