"""Memory of an engine that serves the model: its weights and the latent cache of the completions that run together."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.planner.memory import BYTES, cache_bytes
from model_core.planner.parameters import Shape, parameters


@dataclass(frozen=True)
class Serving:
    """Bytes of weights, and of the cache of `rows` completions of `tokens` each, prompts included."""

    weights: int
    cache: int

    @property
    def total(self) -> int:
        """Both."""
        return self.weights + self.cache


def serving(config: Shape, *, rows: int, tokens: int, dtype: str = "bfloat16") -> Serving:
    """What one replica needs; multi-token prediction's weights are served too."""
    size = BYTES[dtype]
    return Serving(weights=size * parameters(config).trained, cache=rows * tokens * cache_bytes(config, size))
