"""Where and how a run goes on: from the newest whole checkpoint, with new rates, never with the states of another optimizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model_core.model import load_pretrained
from model_core.rundir import COMPLETE, RunDir
from tests.model_core.phases.trained import Running, Train, Trained, cold_start, execute, one_sum

REJECTION: dict[str, Any] = {"phase": "rejection_sampling", "phase_config": {
    "steps": 4, "batch_size": 4, "num_samples": 2, "num_chains": 200, "prompts_per_round": 1, "max_new_tokens": 16}}


def killed_copy(started: Trained, directory: Path) -> RunDir:
    """The started run as it would be had it been killed after step 6, in the middle of writing another checkpoint."""
    shutil.copytree(started.rundir.path, directory)
    rundir = RunDir(directory)
    rundir.result.unlink()
    (rundir.checkpoint(8) / COMPLETE).unlink()
    (rundir.checkpoints / "part_00000007").mkdir()
    return rundir


def test_a_directory_that_has_ended_is_refused_and_left_as_it_is(started: Trained) -> None:
    before = started.rundir.result.read_bytes(), started.rundir.events.read_bytes()
    again = execute(started.rundir)
    assert again.status == 2 and "paths.resume_from" in again.output and "step_00000008" in again.output
    assert (started.rundir.result.read_bytes(), started.rundir.events.read_bytes()) == before


def test_a_killed_directory_goes_on_from_its_newest_checkpoint(started: Trained, tmp_path: Path) -> None:
    again = execute(killed_copy(started, tmp_path / "run"))
    assert again.status == 0, again.output
    assert again.series("loss")[-2:] == started.series("loss")[6:] and len(again.series("loss")) == 10
    assert "step_00000006" in again.events("fallback")[-1]["message"]
    assert not [path.name for path in again.rundir.checkpoints.iterdir() if not (path / COMPLETE).is_file()]
    fractions = [e["fraction"] for e in again.events("progress")[-2:]]
    assert fractions == [7 / 8, 1.0]


def test_a_damaged_one_is_passed_over(started: Trained, tmp_path: Path) -> None:
    rundir = killed_copy(started, tmp_path / "run")
    state = rundir.checkpoint(6) / "state" / "rank_00000.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    again = execute(rundir)
    assert again.status == 0, again.output
    assert again.series("loss")[-5:] == started.series("loss")[3:]
    assert f"{state} is missing or damaged" in again.events("fallback")[0]["message"]


def test_changed_rates_hold_after_resuming(train: Train, started: Trained) -> None:
    changed = {"muon_lr": 0.004, "adamw_lr": 0.001, "weight_decay": 0.3}
    resumed = train(cold_start(phase_config=changed), resume_from=started.checkpoint(3))
    assert resumed.status == 0, resumed.output
    rates = started.series("lr")[3:]
    assert resumed.series("lr") == pytest.approx([rate * 0.004 / 0.02 for rate in rates])
    decayed = train(cold_start(phase_config={**changed, "weight_decay": 0.0}), resume_from=started.checkpoint(3))
    assert decayed.series("loss")[0] == resumed.series("loss")[0] and decayed.series("loss")[-1] != resumed.series("loss")[-1]


def test_a_state_of_another_optimizer_is_refused(train: Train, started: Trained) -> None:
    resumed = train(cold_start(phase_config={"optimizer": "adamw"}), resume_from=started.checkpoint(3))
    assert resumed.status == 2
    error = resumed.result["error"]
    assert error["type"] == "ConfigError" and error["field"] == "phase_config.optimizer"
    assert "Resume with optimizer muon" in error["message"] and "zero_stage 0" in error["message"]


def test_what_one_process_began_two_with_split_experts_end(train: Train) -> None:
    saving = {"every_steps": 4, "keep_last": 9, "keep_best": 0}
    whole = train(cold_start(phase_config={"optimizer": "adamw"}, checkpoint=saving))
    split = train(cold_start(phase_config={"optimizer": "adamw"}, parallel={"num_processes": 2, "expert": 2}),
                  resume_from=whole.checkpoint(4))
    assert whole.status == split.status == 0, split.output
    assert split.series("loss") == pytest.approx(whole.series("loss")[4:], abs=1e-6)
    ours, theirs = (load_pretrained(Path(t.checkpoint(8)) / "model").state_dict() for t in (split, whole))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) <= 1e-6


def test_sampling_that_was_stopped_goes_on_exactly(train: Train, taught: Trained, tmp_path: Path) -> None:
    paths = {"dataset": str(one_sum(tmp_path, num_rows=200)), "start_from": taught.checkpoint(120)}
    whole = train(REJECTION, **paths)
    assert whole.status == 0, whole.output
    midway = RunDir.create(tmp_path / "midway", run=whole.rundir.load()[0], paths=whole.rundir.load()[1])
    with Running(midway) as running:
        running.until(lambda: running.has_told("rollouts"))
        midway.ask_to_stop("asked in the middle")
        assert running.ended().result["status"] == "stopped"
    told = json.loads((midway.checkpoint(0) / "state" / "sampling.json").read_text())
    assert 0 < told["next_row"] < 200 and not told["is_done"]
    resumed = train(REJECTION, resume_from=str(midway.checkpoint(0)), **paths)
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == whole.series("loss") and resumed.result["tokens"] == whole.result["tokens"]
    chains = [Path(t.checkpoint(4), "state", "chains.jsonl").read_bytes() for t in (resumed, whole)]
    assert chains[0] == chains[1]
