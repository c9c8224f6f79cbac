"""What cannot be trusted, understood or computed is refused, and the message names the file, the tensor or the setting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.config import ModelConfig
from model_core.errors import CheckpointError
from model_core.model import Transformer, export_state, load_pretrained, save_pretrained
from model_core.model.exchange import read_config
from tests.model_core.model.random_models import GROUPS, SMALL, V2, forget, say, shape

INDEX = "model.safetensors.index.json"
GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"
MTP = "model.layers.3."


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a good directory of several shards."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("whole")
    save_pretrained(Transformer(shape(num_nextn_predict_layers=1)), directory, max_shard_bytes=60_000)
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.fixture
def good(whole: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def first(directory: Path) -> Path:
    return min(directory.glob("*.safetensors"))


def last(directory: Path) -> Path:
    return max(directory.glob("*.safetensors"))


def index(directory: Path, change: Callable[[dict[str, str]], Any]) -> None:
    stored = json.loads((directory / INDEX).read_text())
    change(stored["weight_map"])
    (directory / INDEX).write_text(json.dumps(stored))


def weights(directory: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Makes one file of all shards, with a change."""
    state = {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}
    for file in directory.glob("*.safetensors*"):
        file.unlink()
    change(state)
    save_file(state, directory / "model.safetensors")


def broken(state: dict[str, Tensor], name: str, number: float) -> None:
    state[name] = state[name].clone()
    state[name].view(-1)[5] = number


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nowhere": (lambda d: [file.unlink() for file in d.iterdir()], "has no config.json"),
    "python": (lambda d: (d / "modeling.py").touch(), "holds modeling.py: code and pickled"),
    "upper case": (lambda d: (d / "MODELING.PY").touch(), "holds MODELING.PY: code and pickled"),
    "pickle": (lambda d: (d / "pytorch_model.bin").touch(), "holds pytorch_model.bin: code and pickled"),
    "torch": (lambda d: (d / "weights.pth").touch(), "holds weights.pth"),
    "auto_map": (lambda d: say(d, auto_map={"AutoConfig": "x.Y"}), "config.json has auto_map"),
    "tokenizer": (lambda d: (d / "tokenizer_config.json").write_text('{"auto_map": {}}'), "tokenizer_config.json has auto_map"),
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "half a config": (lambda d: (d / "config.json").write_text('{"model_type": "deep'), "config.json is not JSON"),
    "not text": (lambda d: (d / "config.json").write_bytes(b"\xff\xfe"), "config.json is not JSON"),
    "a list": (lambda d: (d / "config.json").write_text("[]"), "config.json is a list, not an object"),
    "no weights": (lambda d: [f.unlink() for f in d.glob("*.safetensors*")], "lacks the weights file model.safetensors"),
    "truncated": (lambda d: last(d).write_bytes(last(d).read_bytes()[:-100]), "safetensors is damaged or cannot be read"),
    "empty shard": (lambda d: last(d).write_bytes(b""), "safetensors is damaged or cannot be read"),
    "shard gone": (lambda d: last(d).unlink(), r"lacks the weights file model-0000\d-of-0000\d\.safetensors"),
    "index no JSON": (lambda d: (d / INDEX).write_text("{"), "index.json is not JSON"),
    "index without map": (lambda d: (d / INDEX).write_text("{}"), "index.json has no weight_map"),
    "index of numbers": (lambda d: (d / INDEX).write_text('{"weight_map": {"a": 1}}'), "index.json has no weight_map"),
    "index outside": (lambda d: index(d, lambda m: m.update({GATE: "../model.safetensors"})), r"names the file '\.\./model"),
    "index absolute": (lambda d: index(d, lambda m: m.update({GATE: "/etc/passwd"})), "names the file '/etc/passwd'"),
    "index of no weights": (lambda d: index(d, lambda m: m.update({GATE: "config.json"})), "names the file 'config.json'"),
    "index elsewhere": (lambda d: index(d, lambda m: m.update({GATE: last(d).name})), f"lacks the tensor {re.escape(GATE)}, which"),
    "index of too much": (lambda d: index(d, lambda m: m.update({"extra": last(d).name})), "lacks the tensor extra, which"),
    "index of too little": (lambda d: index(d, lambda m: m.pop(GATE)), f"holds {re.escape(GATE)}, which {INDEX} does not name"),
    "second file": (lambda d: save_file({"x": torch.ones(1)}, d / "more.safetensors"), "holds more.safetensors, which"),
    "both forms": (lambda d: (d / "model.safetensors").write_bytes(first(d).read_bytes()), "holds model.safetensors, which"),
    "twice": (lambda d: save_file(load_file(first(d)) | load_file(last(d)), last(d)), "twice, in model-00001-of"),
    "missing": (
        lambda d: weights(d, lambda s: [s.pop(f"model.layers.{i}.input_layernorm.weight") for i in range(4)]),
        r"lacks 4 of \d+ tensors: model\.layers\.0\.input_.*, .*1\.input_.*, .*2\.input_layernorm\.weight and 1 more",
    ),
    "missing expert": (lambda d: weights(d, lambda s: s.pop(GATE)), f"lacks 1 of .*{re.escape(GATE)}"),
    "half an MTP block": (lambda d: weights(d, lambda s: s.pop(f"{MTP}eh_proj.weight")), r"lacks 1 of .*3\.eh_proj\.weight"),
    "unexpected": (
        lambda d: weights(d, lambda s: s.update({f"extra.{i}": torch.ones(1) for i in range(5)})),
        r"holds 5 unexpected tensors: extra\.0, extra\.1, extra\.2 and 2 more",
    ),
    "unsaid MTP block": (lambda d: say(d, num_nextn_predict_layers=0), r"unexpected tensors: model\.layers\.3"),
    "wrong shape": (
        lambda d: weights(d, lambda s: s.update({GATE: torch.ones(16, 31)})),
        rf"{re.escape(GATE)} has shape \(16, 31\), config.json means \(16, 32\)",
    ),
    "wrong rank": (lambda d: weights(d, lambda s: s.update({GATE: torch.ones(512)})), r"has shape \(512,\), config.json"),
    "wrong format": (lambda d: weights(d, lambda s: s.update({GATE: s[GATE].long()})), "stored as I64, which cannot be read"),
    "NaN": (lambda d: weights(d, lambda s: broken(s, GATE, float("nan"))), f"{re.escape(GATE)} holds NaN or infinity"),
    "infinity": (lambda d: weights(d, lambda s: broken(s, "lm_head.weight", float("-inf"))), "lm_head.weight holds NaN or inf"),
    "other head": (
        lambda d: weights(d, lambda s: s.update({f"{MTP}shared_head.head.weight": s["lm_head.weight"] + 1})),
        "shared_head.head.weight differs from lm_head.weight, which it has to repeat",
    ),
    "odd embedding": (
        lambda d: weights(d, lambda s: s.update({f"{MTP}embed_tokens.weight": torch.ones(3, 3)})),
        r"embed_tokens.weight has shape \(3, 3\), config.json means \(61, 32\)",
    ),
    "another width": (lambda d: say(d, hidden_size=40), "has shape"),
    "fewer layers": (lambda d: say(d, num_hidden_layers=2), r"lacks 4 of .*layers\.2\.eh_proj\.weight"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_directory_that_cannot_be_trusted_is_refused(good: Path, damage: str) -> None:
    change, words = DAMAGES[damage]
    change(good)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_pretrained(good)
    assert str(good) in caught.value.message, "the message says which directory"


def test_a_file_is_no_directory(good: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a directory with a model"):
        load_pretrained(good / "config.json")


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SAID: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "llama"}, "'llama' model; what can be built here is deepseek_v2, deepseek_v3"),
    ({"model_type": "deepseek_v32"}, "'deepseek_v32' model"),
    ({"model_type": ["deepseek_v3"]}, "model; what can be built"),
    ({"rope_interleave": False}, "rope_interleave is False, which cannot be built here, only True"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', .* only 'silu'"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"mlp_bias": True}, "mlp_bias is True"),
    ({"use_mla": False}, "use_mla is False"),
    ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
    ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
    ({"num_key_value_heads": 1}, "num_key_value_heads is 1, but latent attention has 2"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ({"scoring_func": "softmax"}, "scoring_func is 'softmax', which is not computed for deepseek_v3, only sigmoid"),
    ({"topk_method": "greedy"}, "topk_method is 'greedy', .* only noaux_tc"),
    ({"model_type": "deepseek_v2"}, "scoring_func is 'sigmoid', which is not computed for deepseek_v2, only softmax"),
    ({**V2, "model_type": "deepseek_v2", "topk_method": "noaux_tc"}, "only greedy or group_limited_greedy"),
    ({**V2, "model_type": "deepseek_v2", "norm_topk_prob": True}, "norm_topk_prob must be false with softmax"),
    ({**V2, **GROUPS, "model_type": "deepseek_v2"}, "topk_method greedy knows no groups"),
    ({"num_experts_per_tok": 9}, "a token cannot pass more experts than there are"),
    ({"num_nextn_predict_layers": 2}, "num_nextn_predict_layers"),
    ({"vocab_size": 0}, "vocab_size is 0"),
    ({"hidden_size": "32"}, "hidden_size"),
    ({"kv_lora_rank": None}, "does not say kv_lora_rank"),
    ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn', not an object"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "asks for 'linear' positions, .* only default and yarn"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "rope_parameters asks for 'llama3'"),
    ({"rope_scaling": {"type": "yarn"}}, "rope_scaling does not say factor"),
    ({"rope_scaling": YARN | {"factor": 0.5}}, "rope_scaling.factor"),
    ({"rope_scaling": YARN | {"factor": "4"}}, "rope_scaling.factor"),
    ({"rope_scaling": YARN | {"truncate": False}}, "rope_scaling.truncate is False, .* only True"),
    ({"rope_scaling": YARN | {"truncate": None}}, "rope_scaling.truncate is None"),
    ({"rope_scaling": YARN | {"partial_rotary_factor": 0.5}}, "rope_scaling.partial_rotary_factor is 0.5"),
    ({"rope_scaling": YARN | {"long_factor": [1.0]}}, "rope_scaling has long_factor, which is not known here"),
    ({"rope_scaling": YARN | {"beta_fast": 0.5}}, "beta_slow 1.0 must be less than beta_fast 0.5"),
    ({"rope_scaling": YARN | {"mscale": 0.7}}, "means mscale 0.7 and mscale_all_dim 0.0 to DeepSeek's code, but not to"),
    ({"rope_scaling": YARN | {"mscale_all_dim": 0.7}}, "give both above 0, or add attention_factor 1.0379"),
    ({"rope_scaling": YARN | {"attention_factor": 1.0}}, "attention_factor is 1.0, but factor and the mscales make it 1.138"),
    ({"rope_scaling": YARN, "original_max_position_embeddings": 32}, "embeddings is 16, but config.json also says 32"),
    ({"rope_scaling": YARN, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "say different things"),
]


@pytest.mark.parametrize(("values", "words"), SAID)
def test_a_config_that_means_another_model_is_refused(good: Path, values: dict[str, Any], words: str) -> None:
    say(good, **values)
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(good)


@pytest.mark.parametrize(
    "name", [*sorted(SMALL.keys() - {"vocab_size"}), "vocab_size", "q_lora_rank", "norm_topk_prob", "n_routed_experts"]
)
def test_a_size_that_is_not_said_is_not_guessed(good: Path, name: str) -> None:
    forget(good, name)
    with pytest.raises(CheckpointError, match=f"config.json does not say {name}"):
        load_pretrained(good)


THETA = 500.0
READ: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"rope_theta": THETA}, {"rope_theta": THETA}),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": THETA}}, {"rope_theta": THETA}),
    ({"rope_theta": THETA, "rope_scaling": None}, {"rope_theta": THETA}),
    ({"rope_theta": THETA, "rope_scaling": YARN}, {"rope_theta": THETA, "rope_scaling": YARN | {"mscale_all_dim": 0.0}}),
    (
        {"rope_parameters": {"rope_type": "yarn", "factor": 2, "rope_theta": THETA, "mscale": 0.7, "mscale_all_dim": 0.7}},
        {"rope_theta": THETA, "rope_scaling": {
            "factor": 2.0, "original_max_position_embeddings": 64, "mscale": 0.7, "mscale_all_dim": 0.7}},
    ),
    ({"rope_scaling": YARN, "rope_parameters": YARN}, {"rope_scaling": YARN | {"mscale_all_dim": 0.0}}),
    ({"n_group": None, "topk_group": None, "tie_word_embeddings": None}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "meant"), READ)
def test_both_forms_of_positions_are_read_and_silence_has_one_meaning(
    tmp_path: Path, said: dict[str, Any], meant: dict[str, Any]
) -> None:
    save_pretrained(Transformer(shape()), tmp_path)
    forget(tmp_path, "rope_theta", "rope_scaling", "scoring_func", "topk_method", "num_nextn_predict_layers")
    say(tmp_path, **said)
    if "rope_scaling" in meant:
        meant = meant | {"rope_scaling": {key: value for key, value in meant["rope_scaling"].items() if key != "type"}}
    assert read_config(tmp_path) == ModelConfig.parse(SMALL | meant)


def test_a_state_that_lacks_a_tensor_is_not_written(tmp_path: Path) -> None:
    model = Transformer(shape())
    state = model.state_dict()
    del state["model.layers.2.mlp.experts.down_proj"]
    with pytest.raises(CheckpointError, match=r"lacks model\.layers\.2\.mlp\.experts\.down_proj"):
        export_state(state, model.config, tmp_path / "model")
    assert not list(tmp_path.iterdir())
