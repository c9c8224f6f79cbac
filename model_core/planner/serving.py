"""Memory of an engine that serves a model: its weights, and the cache of the requests that run together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model_core.errors import ConfigError
from model_core.planner.dense import DenseModel
from model_core.planner.memory import cache_bytes
from model_core.planner.parameters import Shape, parameters


@dataclass(frozen=True)
class ServedModel:
    """What of a model decides about an engine's memory."""

    parameters: int
    context: int
    """Tokens of the longest prompt and answer together."""
    cache_numbers: int
    """Numbers in the cache for one token; 0 where the configuration does not tell."""
    has_latent_cache: bool
    """Whether every device keeps the whole cache, as with latent attention; else its heads are divided."""
    stored_as: str = "F32"
    """Format of most weights, as safetensors calls it."""

    @classmethod
    def of(cls, shape: Shape) -> ServedModel:
        """A model that is made here, with its heads of multi-token prediction; its weights are stored in float32."""
        is_latent = not isinstance(shape, DenseModel)
        return cls(parameters(shape).trained, shape.max_position_embeddings, cache_bytes(shape, 1), is_latent)

    @classmethod
    def published(cls, config: Mapping[str, Any], *, num_parameters: int, context: int, stored_as: str) -> ServedModel:
        """A directory of others: `config` is its config.json, the rest was counted in its files."""
        numbers, is_latent = cache_numbers(config)
        return cls(num_parameters, context, numbers, is_latent, stored_as)


def cache_numbers(config: Mapping[str, Any]) -> tuple[int, bool]:
    """Numbers that one token has in the cache, by a config.json of any class, and whether they are latents.

    0 where a size is missing. Source: `kv_lora_rank` and `qk_rope_head_dim` are of DeepSeek-V2 and V3; classes that the planner
    knows are read with their defaults, others by the names that transformers gives to keys and values.
    """
    layers = _size(config, "num_hidden_layers")
    if not layers:
        return 0, False
    try:
        return cache_bytes(DenseModel.of(config), 1), False
    except ConfigError:
        pass  # another class, or one that does not say all
    if latent := _size(config, "kv_lora_rank"):
        return (latent + _size(config, "qk_rope_head_dim")) * layers, True
    heads = _size(config, "num_attention_heads")
    width = _size(config, "head_dim") or _size(config, "hidden_size") // max(heads, 1)
    return 2 * (_size(config, "num_key_value_heads") or heads) * width * layers, False


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


@dataclass(frozen=True)
class Load:
    """What an engine does at once with its settings, as it says itself."""

    number_bytes: float
    """Of each weight, and of each number in the cache where that has no format of its own."""
    rows: int
    """Requests that decode together."""
    tokens: int
    """Of one request at most."""
    devices: int = 1
    """Over which each layer is split."""
    copies: int = 1
    """Of the model, each on devices of its own."""
    cache_number_bytes: int | None = None
    """Of each number in the cache; None: as `number_bytes`."""
    cache_tokens: int | None = None
    """Size of a cache that is laid out at the start; None for one that takes what is left."""


@dataclass(frozen=True)
class Need:
    """Bytes on each device of one replica."""

    weights: int
    request: int
    """Cache of one request as long as it may be."""
    laid_out: int
    """Cache that is laid out at the start; 0 where it takes what is left."""
    rows: int
    """Requests that are to decode together."""

    @property
    def least(self) -> int:
        """Without which it does not start, or, where the cache takes what is left, cannot finish one request."""
        return self.weights + (self.laid_out or self.request)

    @property
    def cache(self) -> int:
        """Of all requests that are to run, as long as they may be, or as it is laid out."""
        return self.laid_out or self.rows * self.request

    @property
    def most(self) -> int:
        """With which every request that is to run may be as long as it may be."""
        return self.weights + self.cache

    def rows_within(self, room: int) -> int:
        """How many requests of full length have their place on devices of `room` bytes."""
        if not self.request:
            return self.rows
        return min(self.rows, max((self.laid_out or room - self.weights) // self.request, 0))


def need(model: ServedModel, load: Load) -> Need:
    """What one replica takes of each of its devices."""
    whole = model.cache_numbers * (load.number_bytes if load.cache_number_bytes is None else load.cache_number_bytes)
    token = math.ceil(whole if model.has_latent_cache else whole / load.devices)
    return Need(
        weights=math.ceil(model.parameters * load.number_bytes / load.devices),
        request=token * load.tokens,
        laid_out=token * (load.cache_tokens or 0),
        rows=load.rows,
    )


def devices_that_fit(model: ServedModel, load: Load, *, room: int, most: int) -> int | None:
    """The smallest number of devices of `room` bytes over which it fits, doubled up to `most`; None when over none."""
    devices = load.devices
    while devices * load.copies <= most:
        if need(model, replace(load, devices=devices)).least <= room:
            return devices
        devices *= 2
    return None
