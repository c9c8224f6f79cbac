"""What is written, transformers reads whole; what is not a dense safetensors directory is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from model_core.causal import DENSE, DenseShape, count_dense, export_student, load_student
from model_core.config import ParallelConfig, TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import prompt_ids, train_tokenizer
from model_core.errors import CheckpointError, ConfigError
from model_core.model import load_pretrained
from model_core.training.families import family_of
from tests.model_core.causal.students import shape, student


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TokenizerConfig(), [Row("1+2=", "<think>1+2=3</think>3")])


@pytest.fixture
def written(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    model = student()
    export_student(model.state_dict(), model.config, tmp_path / "model", tokenizer)
    return tmp_path / "model"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", DENSE)
def test_transformers_finds_every_tensor_and_no_other(
    kind: str, tied: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model, maker = student(kind, tie_word_embeddings=tied), AutoModelForCausalLM
    export_student(model.state_dict(), model.config, tmp_path / "model", tokenizer)
    read: Any = maker
    theirs, found = read.from_pretrained(str(tmp_path / "model"), output_loading_info=True)
    assert not any(found[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens_BT = torch.arange(8)[None]
    torch.testing.assert_close(theirs(tokens_BT).logits, model(tokens_BT), rtol=1e-5, atol=1e-6)
    again = load_student(tmp_path / "model")
    assert again.config == model.config and torch.equal(again(tokens_BT), model(tokens_BT))
    assert theirs.config.eos_token_id == tokenizer.eos_token_id
    ids: Any = AutoTokenizer.from_pretrained(str(tmp_path / "model"))
    assert prompt_ids(ids, "1+2=") == prompt_ids(tokenizer, "1+2=")


def test_a_shape_is_json_and_counts_its_parameters() -> None:
    for kind in DENSE:
        one = shape(kind)
        assert DenseShape.of(json.loads(json.dumps(one.resolved())), where="json") == one
        assert count_dense(one) == sum(p.numel() for p in student(kind).parameters())


def test_what_is_no_dense_student_is_refused(written: Path) -> None:
    with pytest.raises(CheckpointError, match="'qwen2' model"):
        load_pretrained(written)  # the door of the built-in engine
    (written / "model.py").write_text("")
    with pytest.raises(CheckpointError, match=r"model\.py: code and pickled weights are refused"):
        load_student(written)


@pytest.mark.parametrize(("values", "words"), [
    ({"model_type": "deepseek_v3"}, "one of qwen2, qwen3, llama"), ({"auto_map": {}}, "auto_map"), ({"hidden_size": "x"}, "cannot be read"),
    ({"num_hidden_layers": 3}, "missing keys"), ({"num_hidden_layers": 1}, "unexpected keys"),
    ({"hidden_size": 32}, "mismatched keys|cannot be read"),
])
def test_a_config_that_does_not_fit_is_refused(values: dict[str, Any], words: str, written: Path) -> None:
    stored = json.loads((written / "config.json").read_text())
    stored.pop("layer_types", None)
    (written / "config.json").write_text(json.dumps(stored | values))
    with pytest.raises(CheckpointError, match=words):
        load_student(written)


def test_weights_that_are_not_finite_are_not_written(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = student()
    state = {**model.state_dict(), "lm_head.weight": torch.full((24, 16), float("nan"))}
    with pytest.raises(CheckpointError, match=r"lm_head\.weight holds NaN"):
        export_student(state, model.config, tmp_path / "model", tokenizer)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["expert", "pipeline", "tensor", "zero_stage"])
def test_a_split_student_is_refused(name: str) -> None:
    family = family_of(shape())
    family.check_layout(shape(), ParallelConfig(num_processes=2))
    with pytest.raises(ConfigError, match=f"{name} is 2, .*set it to 1") as refused:
        family.check_layout(shape(), ParallelConfig.model_validate({"num_processes": 2, name: 2}))
    assert refused.value.field == f"parallel.{name}"
