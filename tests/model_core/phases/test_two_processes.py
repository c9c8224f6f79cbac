"""Two processes with ZeRO-1 and split experts learn what one process learns, and leave a model like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

from model_core.config import ModelConfig, RunConfig
from model_core.errors import ConfigError
from model_core.model import load_pretrained
from model_core.training.engine import check_experts
from tests.model_core.phases.trained import TINY, Train, Trained, cold_start

TWO: dict[str, Any] = {"parallel": {"num_processes": 2, "expert": 2}, "phase_config": {"optimizer": "adamw"}}


@pytest.fixture(scope="module")
def split(train: Train) -> Trained:
    trained = train(cold_start(**TWO, checkpoint={"every_steps": 4, "keep_last": 9}))
    assert trained.status == 0, trained.output
    return trained


def test_they_learn_what_one_process_learns(train: Train, split: Trained) -> None:
    alone = train(cold_start(phase_config={"optimizer": "adamw"}))
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


def test_a_resumed_one_is_bitwise_the_same(train: Train, split: Trained) -> None:
    resumed = train(cold_start(**TWO), resume_from=split.checkpoint(4))
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == split.series("loss")[4:]


def test_the_gate_of_the_loaded_model_is_used(train: Train) -> None:
    """The configuration of a run that starts from a checkpoint says nothing true about the model."""
    gate = {"norm_topk_prob": False, "routed_scaling_factor": 2.5, "n_group": 2, "topk_group": 1}
    unlike = train(cold_start(model={**TINY, **gate}, phase_config={"optimizer": "adamw"}))
    assert unlike.status == 0, unlike.output
    trained = train({
        "phase": "reinforcement", "parallel": {"num_processes": 2, "expert": 2}, "model": {},
        "phase_config": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 16},
    }, start_from=unlike.checkpoint(8))
    assert trained.status == 0, trained.output
    differences = [v for v in trained.series("train_rollout_logprob_diff/max") if v is not None]
    assert differences and max(differences) < 1e-3


@pytest.mark.parametrize(("shape", "words"), [
    ({"n_routed_experts": 3}, "choose a divisor"), ({"first_k_dense_replace": 3}, "no expert layer"),
    ({"n_routed_experts": 4, "n_group": 4, "topk_group": 2}, "groups of one expert"),
])
def test_experts_that_cannot_be_split_are_refused(shape: dict[str, Any], words: str) -> None:
    config = RunConfig.parse({"phase": "cold_start", "parallel": {"num_processes": 2, "expert": 2}})
    with pytest.raises(ConfigError, match=words) as refused:
        check_experts(ModelConfig.parse(shape), config)
    assert refused.value.field == "parallel.expert"
