"""Two processes with ZeRO-1 and split experts learn what one process learns, and leave a model like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

from model_core.model import load_pretrained
from tests.model_core.phases.trained import Train, Trained, cold_start

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
