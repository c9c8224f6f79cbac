"""A trainer that is killed without a word leaves a checkpoint from which another goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from tests.model_core.phases.trained import BASE, Train, cold_start

CONFIG = cold_start(steps=40, checkpoint={"every_steps": 3, "keep_last": 2}, **BASE)


def test_a_killed_trainer_is_resumed_bitwise_from_its_last_whole_checkpoint(
    train: Train, dataset: Path, tmp_path: Path
) -> None:
    rundir = RunDir.create(tmp_path / "run", run=RunConfig.parse(CONFIG), paths=RunPaths(dataset=str(dataset)))
    _kill_after_a_checkpoint(rundir)
    assert rundir.read_result() is None
    last = rundir.complete_checkpoints()[-1]
    step = int(last.name.removeprefix("step_"))
    resumed, whole = train(CONFIG, resume_from=str(last)), train(CONFIG)
    assert resumed.status == whole.status == 0, resumed.output
    assert resumed.series("loss") == whole.series("loss")[step:]
    assert resumed.result["quality"] == whole.result["quality"]


def _kill_after_a_checkpoint(rundir: RunDir) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with rundir.log.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "model_core", "train", str(rundir.path)], env=env,
                                   cwd=Path(__file__).parents[3], stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 120
    while not rundir.complete_checkpoints():
        assert process.poll() is None and time.monotonic() < deadline, rundir.log.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
