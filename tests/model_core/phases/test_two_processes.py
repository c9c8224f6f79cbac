"""Two processes learn what one process learns, however the model is laid out, and leave a model like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

from model_core.model import load_pretrained
from tests.model_core.phases.trained import TINY, Train, Trained, cold_start

LAYOUTS: list[dict[str, int]] = [{"expert": 2}, {"pipeline": 2}, {"tensor": 2}, {"zero_stage": 3}]


def with_two(layout: dict[str, int]) -> dict[str, Any]:
    """Two processes, and forward passes enough for each stage of a pipeline."""
    return {"parallel": {"num_processes": 2, **layout}, "phase_config": {"optimizer": "adamw", "max_micro_tokens": 160}}


@pytest.fixture(scope="module")
def alone(train: Train) -> Trained:
    return train(cold_start(phase_config={"optimizer": "adamw"}))


WHOLE = [*LAYOUTS[:2], *(pytest.param(layout, marks=pytest.mark.slow) for layout in LAYOUTS[2:])]
"""What every layout computes, and that it goes on, is in `training/test_parity.py` and `test_checkpoints_across_layouts.py`."""


@pytest.fixture(scope="module", params=WHOLE, ids="-".join)
def split(train: Train, request: pytest.FixtureRequest) -> Trained:
    trained = train(cold_start(**with_two(request.param), checkpoint={"every_steps": 4, "keep_last": 9}))
    assert trained.status == 0, trained.output
    return trained


def test_they_learn_what_one_process_learns(alone: Trained, split: Trained) -> None:
    assert split.series("loss")[-1] < split.series("loss")[0]
    assert split.series("loss") == pytest.approx(alone.series("loss"), rel=1e-3)
    assert split.result["tokens"] == alone.result["tokens"]
    # Which experts a token passes is decided alike, but for ties that rounding breaks.
    for ours, theirs in zip(split.events("experts")[0]["layers"], alone.events("experts")[0]["layers"], strict=True):
        assert ours == pytest.approx(theirs, abs=0.01)


def test_their_checkpoint_is_one_whole_model(split: Trained) -> None:
    directory = Path(split.checkpoint(8)) / "model"
    reference, info = DeepseekV3ForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokens = torch.tensor([AutoTokenizer.from_pretrained(directory)("12+34=")["input_ids"]])
    with torch.no_grad():
        assert (load_pretrained(directory).eval()(tokens) - reference.eval()(tokens).logits).abs().max() <= 1e-5


def test_they_measure_with_the_whole_model(alone: Trained, split: Trained) -> None:
    before, *_during, after = split.events("evaluation")
    expected = alone.events("evaluation")[0]
    assert before["num_problems"] == after["num_problems"] == 24
    assert before["accuracy"] == expected["accuracy"] and before["quality"] == pytest.approx(expected["quality"], abs=1e-6)
    assert sorted(e["completion"] for e in before["examples"]) != sorted(e["completion"] for e in after["examples"])


@pytest.mark.parametrize("split", LAYOUTS[:2], ids="-".join, indirect=True)
def test_a_resumed_one_is_bitwise_the_same(train: Train, split: Trained) -> None:
    layout = split.rundir.load()[0].parallel.resolved()
    resumed = train(cold_start(**with_two(layout)), resume_from=split.checkpoint(4))
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == split.series("loss")[4:]


@pytest.mark.parametrize("layout", [{"expert": 2}, pytest.param({"zero_stage": 3}, marks=pytest.mark.slow)], ids="-".join)
def test_the_gate_of_the_loaded_model_is_used(layout: dict[str, int], train: Train) -> None:
    """The configuration of a run that starts from a checkpoint says nothing true about the model. What samples is put
    together from both processes in every step, and agrees with what is trained."""
    gate = {"norm_topk_prob": False, "routed_scaling_factor": 2.5, "n_group": 2, "topk_group": 1}
    unlike = train(cold_start(model={**TINY, **gate}, phase_config={"optimizer": "adamw"}))
    assert unlike.status == 0, unlike.output
    trained = train({
        "phase": "reinforcement", "parallel": {"num_processes": 2, **layout}, "model": {},
        "phase_config": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 16},
    }, start_from=unlike.checkpoint(8))
    assert trained.status == 0, trained.output
    differences = [v for v in trained.series("train_rollout_logprob_diff/max") if v is not None]
    assert differences and max(differences) < 1e-3
