"""Whole runs of each phase: what they tell, what they leave, and that a stopped one goes on exactly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from model_core.events import KINDS, METRICS
from model_core.model import load_pretrained
from model_core.training.checkpoints import verify
from tests.model_core.phases.trained import Train, Trained, cold_start, one_sum

REINFORCEMENT: dict[str, Any] = {
    "phase": "reinforcement",
    "phase_config": {"steps": 4, "prompts_per_step": 6, "group_size": 4, "max_new_tokens": 16, "warmup_steps": 2},
}
CHECKPOINTS = {"every_steps": 2, "keep_last": 9}


@pytest.fixture(scope="session")
def reinforced(train: Train, started: Trained) -> Trained:
    trained = train({**REINFORCEMENT, "checkpoint": CHECKPOINTS}, start_from=started.checkpoint(8))
    assert trained.status == 0, trained.output
    return trained


def test_a_cold_start_tells_its_whole_story(started: Trained) -> None:
    kinds = [json.loads(line)["kind"] for line in started.rundir.events.read_text().splitlines()]
    assert kinds[0] == "stage" and kinds[-1] == "finished" and set(kinds) <= set(KINDS)
    # Asked for every 4 steps; a checkpoint that is due by its step, every 3, is measured as well.
    measured = [(e["when"], e["step"]) for e in started.events("evaluation")]
    assert measured == [("before", 0), ("during", 3), ("during", 4), ("during", 6), ("after", 8)]
    # The last one is written before the last measurement, and told again with it.
    ending = [kind for kind in kinds if kind in {"checkpoint", "evaluation"}][-3:]
    assert ending == ["checkpoint", "evaluation", "checkpoint"]
    told = [(e["step"], e["is_final"], bool(e["metrics"])) for e in started.events("checkpoint")]
    assert told == [(3, False, True), (6, False, True), (8, False, False), (8, True, True)]
    assert [e["step"] for e in started.events("experts")] == list(range(1, 9))
    (begun,) = started.events("started")
    assert begun["num_active_parameters"] < begun["num_parameters"]
    assert all(sum(layer) == pytest.approx(1, abs=1e-3) for e in started.events("experts") for layer in e["layers"])


def test_loss_falls_and_scalars_are_known(started: Trained) -> None:
    losses = started.series("loss")
    assert len(losses) == 8 and losses[-1] < losses[0]
    named = {name for e in started.events("scalars") for name in e["values"]}
    assert {"loss", "lr", "grad_norm", "moe/max_vio", "moe/load_cv", "moe/bias_norm", "perf/step_s", "perf/tok_s",
            "perf/train_s", "eval/accuracy", "eval/quality"} <= named
    assert all(name in METRICS or name.split("/")[0] in {"reward", "eval"} for name in named)


def test_multi_token_prediction_and_balance_are_trained_and_told_apart_from_the_loss(train: Train) -> None:
    values = cold_start(steps=12, model={"num_nextn_predict_layers": 1}, phase_config={
        "aux_loss_alpha": 0.01, "steps": 12, "max_micro_tokens": 256})
    trained = train({**values, "precision": {"gradient_checkpointing": True}})
    assert trained.status == 0, trained.output
    ahead, balance = trained.series("loss/mtp"), trained.series("moe/balance_loss")
    assert ahead[-1] < ahead[0] and all(later != loss for later, loss in zip(ahead, trained.series("loss"), strict=True))
    assert all(2.9 < value < 6.0 for value in balance)  # two expert layers and that of the block ahead, 1 each when even
    assert load_pretrained(Path(trained.checkpoint(12), "model")).next_token_block is not None


def test_the_result_is_complete(started: Trained) -> None:
    result = started.result
    assert result["status"] == "succeeded" and result["ended_by"] == "steps" and result["steps"] == 8
    assert result["num_problems"] == 24 and result["final_checkpoint"] == "checkpoints/step_00000008"
    assert result["quality_low"] <= result["quality"] <= result["quality_high"]
    assert result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"]
    assert started.events("finished") == [result]


def test_checkpoints_are_sealed_and_in_hugging_face_form(started: Trained) -> None:
    for directory in started.rundir.complete_checkpoints():
        metadata = verify(directory)
        assert metadata["phase"] == "cold_start" and metadata["is_final"] == (metadata["step"] == 8)
        names = {p.name for p in (directory / "model").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names


def test_a_resumed_cold_start_is_bitwise_the_same(train: Train, started: Trained) -> None:
    resumed = train(cold_start(), resume_from=started.checkpoint(3))
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == started.series("loss")[3:]
    assert resumed.series("grad_norm") == started.series("grad_norm")[3:]
    assert resumed.events("experts")[-1] == started.events("experts")[-1]
    assert resumed.result["quality"] == started.result["quality"]
    assert resumed.result["accuracy_before"] == started.result["accuracy_before"]
    weights = [Path(t.checkpoint(8), "model", "model.safetensors").read_bytes() for t in (started, resumed)]
    assert weights[0] == weights[1]


def test_reinforcement_tells_its_metrics_and_rollouts(reinforced: Trained) -> None:
    named = {name for e in reinforced.events("scalars") for name in e["values"]}
    of_others = {  # models and settings that this has not
        "loss/mtp", "moe/balance_loss", "fp16/loss_scale", "fp16/skipped", "budget/used_fraction", "budget/forecast_fraction",
    }  # fmt: skip
    of_others |= {name for name in METRICS if name.startswith(("distil/", "pairs/", "perf/teacher"))}  # and phases
    assert set(METRICS) - of_others <= named
    assert {"reward/logical_consistency/mean", "reward/efficiency/std", "reward/solution_accuracy/unscored"} <= named
    assert [e["step"] for e in reinforced.events("rollouts")] == [1, 2, 3, 4]
    told = reinforced.events("rollouts")[0]
    text = gzip.decompress((reinforced.rundir.path / told["file"]).read_bytes()).decode()
    groups = [json.loads(line) for line in text.splitlines()]
    assert len(groups) == told["num_groups"] == 6
    assert sum(len(group["completions"]) for group in groups) == told["num_rollouts"] == 24
    for group in groups:
        assert sum(c["advantage"] for c in group["completions"]) == pytest.approx(0, abs=1e-6)
        expected = {"text", "num_tokens", "finish_reason", "correct", "reward", "components", "advantage"}
        assert all(set(completion) == expected for completion in group["completions"])


def test_sampler_and_trainer_agree(reinforced: Trained) -> None:
    assert max(v for v in reinforced.series("train_rollout_logprob_diff/max") if v is not None) < 1e-3


def test_resumed_reinforcement_is_bitwise_the_same(train: Train, started: Trained, reinforced: Trained) -> None:
    resumed = train(REINFORCEMENT, start_from=started.checkpoint(8), resume_from=reinforced.checkpoint(2))
    assert resumed.status == 0, resumed.output
    for name in ("loss", "grad_norm", "reward/total", "kl"):
        assert resumed.series(name) == reinforced.series(name)[2:]


def test_rejection_sampling_learns_from_kept_chains(train: Train, taught: Trained, tmp_path: Path) -> None:
    values = {"phase": "rejection_sampling", "phase_config": {
        "steps": 4, "batch_size": 4, "num_samples": 4, "num_chains": 8, "max_new_tokens": 16}}
    trained = train(values, dataset=str(one_sum(tmp_path, num_rows=1)), start_from=taught.checkpoint(120),
                    rollouts_from=taught.checkpoint(120))
    assert trained.status == 0, trained.output
    assert len(trained.series("loss")) == 4 and trained.events("rollouts")
    chains = Path(trained.checkpoint(4), "state", "chains.jsonl").read_text().splitlines()
    completions = [json.loads(chain)["completion"] for chain in chains]
    assert completions and all(completion.endswith("</think>46") for completion in completions)


def test_the_papers_chain_goes_through_new_weights_and_ends_in_reinforcement(train: Train, taught: Trained, tmp_path: Path) -> None:
    dataset = str(one_sum(tmp_path, num_rows=4))
    sampled = train({"phase": "rejection_sampling", "phase_config": {
        "steps": 3, "batch_size": 2, "num_samples": 4, "num_chains": 3, "max_new_tokens": 16, "max_chains_per_prompt": 2}},
        dataset=dataset, rollouts_from=taught.checkpoint(120))
    assert sampled.status == 0, sampled.output
    (told,) = sampled.events("chains")
    assert told["num_kept"] == 3 and told["num_prompts"] == 4
    assert sampled.result["accuracy_before"] == 0.0 and taught.result["accuracy"] == 1.0  # nothing was learnt before it
    asked = taught.rundir.checkpoint(120) / "model/tokenizer.json"
    assert (sampled.rundir.checkpoint(3) / "model/tokenizer.json").read_bytes() == asked.read_bytes()
    again = train({**REINFORCEMENT, "phase_config": {**REINFORCEMENT["phase_config"], "steps": 1, "temperature": 0.7, "warmup_steps": 1}},
                  dataset=dataset, start_from=sampled.checkpoint(3))
    assert again.status == 0 and again.result["steps"] == 1, again.output


def test_new_weights_need_a_model_that_they_learn_from(train: Train) -> None:
    trained = train({"phase": "rejection_sampling", "phase_config": {"steps": 1, "warmup_steps": 1}})
    assert trained.status == 2 and trained.result["error"]["field"] == "start_from"


def test_no_right_chain_is_a_sentence(train: Train, started: Trained) -> None:
    trained = train({"phase": "rejection_sampling", "phase_config": {
        "steps": 2, "num_samples": 1, "num_chains": 4, "prompts_per_round": 100, "max_new_tokens": 2}},
        start_from=started.checkpoint(3))
    assert trained.status == 2
    assert trained.result["error"]["field"] == "phase_config.num_samples"



def test_the_loss_does_not_depend_on_how_a_batch_is_split(train: Train) -> None:
    values = [cold_start(phase_config={"max_micro_tokens": tokens}) for tokens in (16384, 60)]
    whole, split = [train(v) for v in values]
    assert split.series("loss") == pytest.approx(whole.series("loss"), rel=1e-4)
    assert [e["bias"] for e in split.events("experts")] == [e["bias"] for e in whole.events("experts")]


def test_a_step_without_a_lesson_is_told(train: Train, started: Trained) -> None:
    greedy = {**REINFORCEMENT["phase_config"], "steps": 2, "temperature": 1e-6}
    trained = train({"phase": "reinforcement", "phase_config": greedy}, start_from=started.checkpoint(8))
    assert trained.status == 0, trained.output
    assert [e["message"][:6] for e in trained.events("warning") if "taught nothing" in e["message"]] == ["Step 1", "Step 2"]
