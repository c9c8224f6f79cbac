"""config.json: what is read of it, what is refused, and what is written so that transformers and SGLang build the same.

Source: transformers' DeepseekV2Config and DeepseekV3Config, and the published config.json of both. Deviation: a file that
does not say a size is refused, since others fill it with the sizes of their largest model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.config import ModelConfig
from model_core.errors import CheckpointError, ConfigError
from model_core.model.exchange.rotary import read_rotary, written_rotary
from model_core.published.families import ARCHITECTURES
from model_core.published.files import read_object

GATES = {"deepseek_v2": ("softmax", ("greedy", "group_limited_greedy")), "deepseek_v3": ("sigmoid", ("noaux_tc",))}
"""Scores and ways to choose of each; the first way is what a silent file means."""
_COMPUTED = {
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "moe_layer_freq": 1, "rope_interleave": True,
    "attention_dropout": 0.0, "partial_rotary_factor": 1.0, "use_mla": True,
}  # fmt: skip
"""What the model computes and cannot be told otherwise; a config.json that is silent means this."""
_WRITTEN = ("hidden_act", "attention_bias", "moe_layer_freq", "rope_interleave", "attention_dropout")
_WHEN_SILENT = {
    "q_lora_rank": None, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0, "tie_word_embeddings": False,
}  # fmt: skip
_ELSEWHERE = {"scoring_func", "topk_method", "rope_theta", "rope_scaling"}
_FORBIDDEN = {".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


@dataclass(frozen=True)
class Described:
    """A directory's config.json: as it stands there, and as the shape that it means."""

    stored: dict[str, Any]
    config: ModelConfig


def read_config(path: Path) -> ModelConfig:
    """The shape in config.json. Raises CheckpointError for what is refused or cannot be built."""
    return describe(path).config


def describe(path: Path) -> Described:
    """Reads config.json. Raises CheckpointError for what is refused or cannot be built."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory with a model.")
    forbidden = sorted(item.name for item in path.iterdir() if item.suffix.lower() in _FORBIDDEN)
    if forbidden:
        raise CheckpointError(f"{path} holds {forbidden[0]}: code and pickled weights are refused, use safetensors.")
    file, kinds = path / "config.json", ", ".join(ARCHITECTURES)
    stored = read_object(file)
    _refuse_code(path, stored)
    if stored.get("model_type") not in list(ARCHITECTURES):
        raise CheckpointError(f"{path} is a {stored.get('model_type')!r} model; what can be built here is {kinds}.")
    _refuse_other_computations(stored, path)
    try:
        config = ModelConfig.parse(_gate(stored, path) | read_rotary(stored, file) | _sizes(stored, path), prefix=str(file))
    except ConfigError as error:
        raise CheckpointError(error.message) from error
    if config.vocab_size == 0:
        raise CheckpointError(f"{file}: vocab_size is 0, but a model has at least one token.")
    return Described(stored, config)


def written_config(config: ModelConfig, *, dtype: str) -> dict[str, Any]:
    """What config.json says of a model, but for the ids of its special tokens."""
    return config.resolved() | {name: _COMPUTED[name] for name in _WRITTEN} | {
        "architectures": [ARCHITECTURES[config.model_type]], "model_type": config.model_type, "dtype": dtype,
        "torch_dtype": dtype, "rope_scaling": written_rotary(config.rope_scaling), "ep_size": 1,
        "num_key_value_heads": config.num_attention_heads, "head_dim": config.qk_rope_head_dim,
        "qk_head_dim": config.qk_nope_head_dim + config.qk_rope_head_dim,
    }  # fmt: skip


def _refuse_code(path: Path, stored: dict[str, Any]) -> None:
    tokenizer = path / "tokenizer_config.json"
    for file, found in ((path / "config.json", stored), (tokenizer, read_object(tokenizer) if tokenizer.is_file() else {})):
        if "auto_map" in found:
            raise CheckpointError(f"{file} has auto_map, which runs code at load; remove it to use the model.")


def _refuse_other_computations(stored: dict[str, Any], path: Path) -> None:
    for name, value in _COMPUTED.items():
        if stored.get(name) not in (value, None):
            raise CheckpointError(f"{path}: {name} is {stored[name]!r}, which cannot be built here, only {value!r}.")
    heads, kv_heads = stored.get("num_attention_heads"), stored.get("num_key_value_heads")
    if heads is not None and kv_heads not in (heads, None):
        raise CheckpointError(f"{path}: num_key_value_heads is {kv_heads}, but latent attention has {heads}, one a head.")


def _gate(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    scores, methods = GATES[stored["model_type"]]
    found = {"scoring_func": stored.get("scoring_func") or scores, "topk_method": stored.get("topk_method") or methods[0]}
    for name, allowed in (("scoring_func", (scores,)), ("topk_method", methods)):
        if found[name] not in allowed:
            raise CheckpointError(
                f"{path}: {name} is {found[name]!r}, which is not computed for {stored['model_type']}, only {' or '.join(allowed)}."
            )
    return found


def _sizes(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    names = ModelConfig.model_fields.keys() - _ELSEWHERE
    found = {name: stored[name] for name in names if stored.get(name) is not None}
    missing = sorted(names - found.keys() - _WHEN_SILENT.keys())
    if missing:
        raise CheckpointError(f"{path}/config.json does not say {', '.join(missing)}; the model cannot be built without.")
    if "q_lora_rank" not in stored:
        raise CheckpointError(f"{path}/config.json does not say q_lora_rank; write null when queries are projected directly.")
    return _WHEN_SILENT | found
