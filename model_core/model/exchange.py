"""Reads and writes Hugging Face directories of DeepSeek-V3 models: safetensors, one tensor an expert, config.json.

Only safetensors cross this border: a directory with pickled weights, Python files or `auto_map` is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.config import ModelConfig
from model_core.errors import CheckpointError
from model_core.model.transformer import Transformer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
FIXED = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_act": "silu", "attention_bias": False,
    "moe_layer_freq": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "torch_dtype": "float32", "dtype": "float32",
    "rope_scaling": None, "num_nextn_predict_layers": 0, "attention_dropout": 0.0, "ep_size": 1,
}  # fmt: skip
_COMPUTED = {
    "hidden_act": "silu", "attention_bias": False, "moe_layer_freq": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "rope_interleave": True,
}  # fmt: skip
"""What the model computes and cannot be told otherwise; a config.json that is silent means this."""
_FORBIDDEN = {".py", ".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def load_pretrained(directory: str | Path) -> Transformer:
    """The model of a directory, in float32. Raises CheckpointError naming the file or the tensor."""
    path = Path(directory)
    config = read_config(path)
    state = _stacked(_read_weights(path), config)
    model = Transformer(config)
    _check(state, model.state_dict(), path)
    model.load_state_dict(state)
    return model


def save_pretrained(model: Transformer, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Writes weights, config.json and, when given, the tokenizer with its chat template."""
    export_state(model.state_dict(), model.config, directory, tokenizer)


def export_state(
    state: dict[str, Tensor], config: ModelConfig, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Writes a state dict of `Transformer` as `save_pretrained` does; config.json comes last."""
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    split = _split(state, config)
    if config.tie_word_embeddings:
        split.pop("lm_head.weight", None)
    save_file(split, path / WEIGHTS, metadata={"format": "pt"})
    special: dict[str, Any] = {}
    if tokenizer is not None:
        tokenizer.save_pretrained(str(path))
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    _write(path / "generation_config.json", {"do_sample": False, **special})
    _write(path / "config.json", {**config.resolved(), **FIXED, **_derived(config), **special})


def read_config(path: Path) -> ModelConfig:
    """The shape in config.json. Raises CheckpointError for what we refuse or cannot build."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory with a model.")
    forbidden = sorted(item.name for item in path.iterdir() if item.suffix in _FORBIDDEN)
    if forbidden:
        raise CheckpointError(f"{path} holds {forbidden[0]}: code and pickled weights are refused, use safetensors.")
    try:
        stored = json.loads((path / "config.json").read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} has no config.json.") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}/config.json is not JSON: {error}.") from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}/config.json is a {type(stored).__name__}, not an object with the model's shape.")
    if "auto_map" in stored:
        raise CheckpointError(f"{path}/config.json has auto_map, which runs code at load; remove it to use the model.")
    if stored.get("model_type") != "deepseek_v3":
        raise CheckpointError(f"{path} is a {stored.get('model_type')!r} model; deepseek_v3 is what can be built here.")
    _refuse_other_computations(stored, path)
    known = {name: stored[name] for name in ModelConfig.model_fields if stored.get(name) is not None}
    rope = stored.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default" or stored.get("rope_scaling"):
        raise CheckpointError(f"{path}: scaled rotary positions cannot be built yet, only the default ones.")
    if "rope_theta" in rope:
        known["rope_theta"] = rope["rope_theta"]
    return ModelConfig.parse({**known, "q_lora_rank": stored.get("q_lora_rank")}, prefix="config.json")


def _refuse_other_computations(stored: dict[str, Any], path: Path) -> None:
    for name, value in _COMPUTED.items():
        if stored.get(name) not in (value, None):
            raise CheckpointError(f"{path}: {name} is {stored[name]!r}, which cannot be built here, only {value!r}.")
    heads, kv_heads = stored.get("num_attention_heads"), stored.get("num_key_value_heads")
    if kv_heads not in (heads, None):
        raise CheckpointError(f"{path}: num_key_value_heads is {kv_heads}, but latent attention has {heads}, one a head.")
    if stored.get("quantization_config"):
        raise CheckpointError(f"{path} holds quantized weights (quantization_config), which cannot be read here; convert them.")


def _derived(config: ModelConfig) -> dict[str, Any]:
    return {
        "num_key_value_heads": config.num_attention_heads, "head_dim": config.qk_rope_head_dim, "rope_interleave": True,
        "qk_head_dim": config.qk_nope_head_dim + config.qk_rope_head_dim,
    }  # fmt: skip


def _read_weights(path: Path) -> dict[str, Tensor]:
    index, names = path / "model.safetensors.index.json", [WEIGHTS]
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise CheckpointError(f"{path} lacks the weights file {name}.")
        try:
            state.update(load_file(path / name))
        except SafetensorError as error:
            raise CheckpointError(f"{path / name} is damaged: {error}.") from error
    return {name: tensor.float() for name, tensor in state.items()}


def _moe_layers(config: ModelConfig) -> range:
    return range(config.first_k_dense_replace, config.num_hidden_layers)


def _stacked(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Published names → ours: the experts of a layer in two stacks."""
    state = dict(state)
    for layer in _moe_layers(config):
        prefix = f"model.layers.{layer}.mlp.experts"
        try:
            experts = [
                {part: state.pop(f"{prefix}.{number}.{part}_proj.weight") for part in ("gate", "up", "down")}
                for number in range(config.n_routed_experts)
            ]
        except KeyError as error:
            raise CheckpointError(f"The weights lack the tensor {error.args[0]}.") from None
        state[f"{prefix}.gate_up_proj"] = torch.stack([torch.cat([e["gate"], e["up"]]) for e in experts])
        state[f"{prefix}.down_proj"] = torch.stack([e["down"] for e in experts])
    if config.tie_word_embeddings and "model.embed_tokens.weight" in state:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def _split(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our names → published ones: one tensor an expert and a projection."""
    result = {}
    for name, tensor in state.items():
        prefix, _, part = name.rpartition(".")
        if part == "gate_up_proj":
            for number, both in enumerate(tensor):
                gate, up = both.chunk(2)
                result[f"{prefix}.{number}.gate_proj.weight"] = gate.contiguous()
                result[f"{prefix}.{number}.up_proj.weight"] = up.contiguous()
        elif part == "down_proj":
            result |= {f"{prefix}.{number}.down_proj.weight": down.contiguous() for number, down in enumerate(tensor)}
        else:
            result[name] = tensor.contiguous()
    return {name: tensor.detach().cpu().clone() for name, tensor in result.items()}


def _check(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise CheckpointError(f"{path} lacks the tensor {missing[0]} (and {len(missing) - 1} more).")
    if unexpected:
        raise CheckpointError(f"{path} holds the unexpected tensor {unexpected[0]} (and {len(unexpected) - 1} more).")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(f"{path}: {name} has shape {tuple(found[name].shape)}, config.json means {tuple(tensor.shape)}.")
        if not found[name].isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; the checkpoint is unusable.")


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
