"""How runs end before their time: stop, budget, errors that a user can mend."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from model_core.config import RunConfig, RunPaths
from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE, RunDir
from model_core.training.checkpoints import seal, verify
from model_core.training.start import load_start
from tests.model_core.phases.trained import BASE, TINY, Running, Train, Trained, cold_start, execute, one_sum


def test_a_stop_leaves_a_checkpoint_that_goes_on_exactly(train: Train, started: Trained) -> None:
    stopped = train(cold_start(), stop="asked by a person")
    assert stopped.status == 0, stopped.output
    assert stopped.result["status"] == "stopped" and stopped.result["ended_by"] == "stop"
    assert stopped.events("stopping") == [{"reason": "asked by a person", "step": 0}]
    verify(stopped.checkpoint(0))
    resumed = train(cold_start(), resume_from=stopped.checkpoint(0))
    assert resumed.series("loss") == started.series("loss")


def test_a_used_up_budget_ends_with_a_measurement(train: Train) -> None:
    trained = train(cold_start(steps=5000, budget={"device_seconds": 0.01}))
    assert trained.status == 0, trained.output
    result = trained.result
    assert result["status"] == "succeeded" and result["ended_by"] == "budget" and result["steps"] < 5000
    assert result["quality"] is not None and verify(trained.rundir.path / result["final_checkpoint"])["is_final"]


@pytest.mark.parametrize(("values", "paths", "field", "words"), [
    (cold_start(model={**TINY, "max_position_embeddings": 16}), {}, "model.max_position_embeddings", "do not fit"),
    (cold_start(model={**TINY, "vocab_size": 5}), {}, "model.vocab_size", "tokenizer has"),
    (cold_start(parallel={"offload": "optimizer"}), {}, "parallel.offload", "no GPU"),
    (cold_start(precision={"dtype": "float16"}), {}, "precision.dtype", "GPU"),
    ({"phase": "reinforcement"}, {}, "start_from", "checkpoint"),
    (cold_start(), {"dataset": "/does/not/exist"}, "dataset", "not prepared"),
])
def test_what_cannot_work_is_said_at_its_field(
    train: Train, values: dict[str, Any], paths: dict[str, str], field: str, words: str
) -> None:
    trained = train(values, **paths)
    assert trained.status == 2
    assert trained.result["status"] == "failed" and trained.result["ended_by"] == "error"
    (told,) = trained.events("error")
    assert told["field"] == field and words in told["message"]
    assert trained.result["error"] == {"type": told["type"], "message": told["message"], "field": field}


def test_an_empty_dataset_is_refused(train: Train, tmp_path: Path) -> None:
    for split in ("train", "held_out"):
        (tmp_path / f"{split}.jsonl").touch()
    trained = train(cold_start(), dataset=str(tmp_path))
    assert trained.status == 2 and "no training rows" in trained.result["reason"]


def test_an_incomplete_checkpoint_is_refused(train: Train, started: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "step_00000008"
    shutil.copytree(started.checkpoint(8), copy)
    (copy / COMPLETE).unlink()
    trained = train({"phase": "reinforcement"}, start_from=str(copy))
    assert trained.status == 2
    assert trained.result["error"]["type"] == "CheckpointError" and COMPLETE in trained.result["reason"]


def test_a_broken_config_is_an_event(started: Trained, tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    stored = json.loads(started.rundir.config.read_text())
    stored["run"]["phase_config"]["stepps"] = 3
    rundir.config.write_text(json.dumps(stored))
    trained = execute(rundir)
    assert trained.status == 2 and trained.events("error")[0]["field"] == "phase_config.stepps"


@pytest.mark.parametrize(("is_measured", "what", "step"), [(False, "NonFiniteLoss", 1), (True, "NonFiniteLogits", 0)])
def test_what_is_no_number_is_told_where_it_is_first_seen(
    train: Train, started: Trained, tmp_path: Path, is_measured: bool, what: str, step: int
) -> None:
    """In the first step; or before, where held-out problems are asked."""
    dataset = tmp_path / "data"
    dataset.mkdir()
    one_sum(dataset, num_rows=16)
    if not is_measured:
        (dataset / "held_out.jsonl").write_text("")
    copy = tmp_path / "step_00000008"
    shutil.copytree(started.checkpoint(8), copy)
    weights = load_file(copy / "model" / "model.safetensors")
    weights["model.norm.weight"].fill_(3e38)  # finite, so it loads; the logits overflow
    save_file(weights, copy / "model" / "model.safetensors", metadata={"format": "pt"})
    seal(copy, json.loads((copy / "metadata.json").read_text()))
    trained = train(cold_start(), start_from=str(copy), dataset=str(dataset))
    assert trained.status == 2
    (told,) = trained.events("error")
    assert (told["type"], told["rank"], told["step"]) == (what, 0, step)
    assert trained.result["final_checkpoint"] is None


def test_gradients_that_are_not_finite_are_skipped_and_then_end_the_run(train: Train, started: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "step_00000008"
    shutil.copytree(started.checkpoint(8), copy)
    weights = load_file(copy / "model" / "model.safetensors")
    weights["model.embed_tokens.weight"].zero_()  # then every norm divides by its epsilon: all logits are 0
    save_file(weights, copy / "model" / "model.safetensors", metadata={"format": "pt"})
    shape = json.loads((copy / "model" / "config.json").read_text()) | {"rms_norm_eps": 1e-36}
    (copy / "model" / "config.json").write_text(json.dumps(shape))
    seal(copy, json.loads((copy / "metadata.json").read_text()))
    trained = train(cold_start(steps=50), start_from=str(copy))
    assert trained.status == 2, trained.output
    (told,) = trained.events("error")
    assert told["type"] == "NonFiniteGradient" and told["step"] == 5
    skipped = [e["message"] for e in trained.events("warning") if "skipped" in e["message"]]
    assert len(skipped) == 5 and "(5 in a row)" in skipped[-1]
    assert trained.series("grad_norm")[0] in {"inf", "nan"}


@pytest.mark.parametrize("phase", ["reinforcement", "rejection_sampling"])
def test_data_without_answers_is_refused_before_the_first_step(
    train: Train, started: Trained, tmp_path: Path, phase: str
) -> None:
    directory = one_sum(tmp_path, num_rows=4, answer=None)
    trained = train({"phase": phase}, dataset=str(directory), start_from=started.checkpoint(8))
    assert trained.status == 2
    assert trained.result["error"]["type"] == "DataError" and trained.result["error"]["field"] == "dataset"
    assert not trained.events("rollouts") and "answer" in trained.result["reason"]


def test_sigterm_ends_at_the_next_step_with_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    config = RunConfig.parse({**BASE, **cold_start(steps=100_000)})
    rundir = RunDir.create(tmp_path / "run", run=config, paths=RunPaths(dataset=str(dataset)))
    with Running(rundir) as running:
        running.until(lambda: running.has_told("experts"))
        os.kill(running.pid, signal.SIGTERM)
        trained = running.ended()
    assert trained.status == 0, trained.output
    assert trained.result["status"] == "stopped" and "SIGTERM" in trained.result["reason"]
    verify(rundir.path / trained.result["final_checkpoint"])


@pytest.mark.parametrize("harm", ["no model_config", "no tokenizer"])
def test_a_checkpoint_that_lacks_something_is_a_sentence(started: Trained, tmp_path: Path, harm: str) -> None:
    copy = tmp_path / "step_00000008"
    shutil.copytree(started.checkpoint(8), copy)
    metadata = json.loads((copy / "metadata.json").read_text())
    if harm == "no model_config":
        del metadata["model_config"]
    else:
        for path in (copy / "model").glob("*token*"):
            path.unlink()
    seal(copy, metadata)
    with pytest.raises(CheckpointError, match="Choose another"):
        load_start(copy)
