"""A reward model's directory is the one that transformers' class for sequence classification reads, and is read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from model_core.causal import load_student
from model_core.errors import CheckpointError
from model_core.model import load_pretrained, save_pretrained
from model_core.reward_model import RewardModel, RewardShape, export_reward_model, load_reward_model, with_head
from model_core.reward_model.scoring import documents_of, scores_of
from model_core.training.families import family_of
from tests.model_core.causal.students import student
from tests.model_core.training.in_process import ROWS, model_start
from tests.model_core.training.ranks import CPU

KINDS = ["ours", "ours tied", "qwen2", "qwen3", "llama", "qwen2 tied"]


def made(kind: str) -> tuple[RewardModel, RewardShape, PreTrainedTokenizerFast]:
    name, _, tied = kind.partition(" ")
    start = model_start(tie_word_embeddings=bool(tied) and name == "ours")
    if name == "ours":
        return (*with_head(start.model), start.tokenizer)
    return (*with_head(student(name, tie_word_embeddings=bool(tied), vocab_size=len(start.tokenizer))), start.tokenizer)


@pytest.fixture(params=KINDS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RewardModel, RewardShape, PreTrainedTokenizerFast, Path]:
    model, shape, tokenizer = made(request.param)
    model.centre.fill_(0.37)
    export_reward_model(model.state_dict(), shape, tmp_path / "model", tokenizer)
    return model, shape, tokenizer, tmp_path / "model"


def test_it_comes_back_and_transformers_scores_alike(written: Any) -> None:
    model, shape, tokenizer, directory = written
    again, of = load_reward_model(directory)
    assert of == shape and type(again) is type(model)
    theirs = again.state_dict()
    assert theirs.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())
    reader: Any = AutoModelForSequenceClassification
    peer, found = reader.from_pretrained(str(directory), output_loading_info=True)
    assert not any(found[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")) and peer.config.num_labels == 1
    documents = [document[:32] for document in documents_of(tokenizer, [(row.prompt, str(row.completion)) for row in ROWS[:4]])]
    with torch.no_grad():
        expected = [float(peer(torch.tensor([document])).logits[0, 0]) for document in documents]
    assert scores_of(again, documents, device=CPU) == pytest.approx(expected, abs=2e-5)
    total, active = family_of(shape).count(shape)
    assert total == sum(parameter.numel() for parameter in model.parameters()) >= active


def test_it_is_no_language_model_and_a_language_model_is_none_of_it(written: Any, tmp_path: Path) -> None:
    _model, shape, _tokenizer, directory = written
    with pytest.raises(CheckpointError, match=r"lm_head|score"):
        (load_pretrained if hasattr(shape.trunk, "kv_lora_rank") else load_student)(directory)
    save_pretrained(model_start().model, tmp_path / "language")
    with pytest.raises(CheckpointError, match=r"is no reward model: config\.json says \['DeepseekV3ForCausalLM'\]"):
        load_reward_model(tmp_path / "language")


def without(name: str) -> Any:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return change


@pytest.mark.parametrize("written", ["ours", "qwen2"], indirect=True)
@pytest.mark.parametrize(("change", "words"), [
    (without("score.weight"), r"lacks .*score\.weight"), (without("model.norm.weight"), r"lacks .*model\.norm\.weight"),
    (lambda tensors: tensors.update({"score.bias": torch.zeros(1)}), r"unexpected .*score\.bias"),
    (lambda tensors: tensors.update({"score.weight": torch.zeros(2, 16)}), r"score\.weight.*shape|shape.*score\.weight"),
    (lambda tensors: tensors.update({"score.weight": torch.full((1, 16), torch.nan)}), r"score\.weight holds NaN"),
])  # fmt: skip
def test_a_tensor_that_is_wrong_is_named(written: Any, change: Any, words: str) -> None:
    directory = written[3]
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=words):
        load_reward_model(directory)


@pytest.mark.parametrize("written", ["ours", "qwen2"], indirect=True)
@pytest.mark.parametrize("centre", [None, "0.5", True, float("inf")])
def test_a_centre_that_is_no_number_is_refused(written: Any, centre: Any) -> None:
    file = written[3] / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "reward_centre": centre}))
    with pytest.raises(CheckpointError, match="reward_centre is"):
        load_reward_model(written[3])


def test_the_centre_stays_exact_in_sixteen_bits() -> None:
    model, _shape, _tokenizer = made("ours")
    model.centre.fill_(0.3701)
    half = model.to(torch.bfloat16)
    assert half.score.weight.dtype == torch.bfloat16 and half.centre.dtype == torch.float32
    assert float(half.centre) == pytest.approx(0.3701, abs=1e-7)
