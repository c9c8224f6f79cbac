"""Efficiency: no more tokens than the answer needs.

Source: “How DeepSeek-R1 Was Built”, reward with weight 0.1; the article does not define it. Ours is 1 up to a target
length and falls linearly to 0 at a limit; an answer that was cut off is worth 0.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._types import Sample, Score


@registered
class Efficiency:
    """1 up to `target_tokens`, 0 from `limit_tokens` on."""

    bounds = (0.0, 1.0)

    class Config(StrictModel):
        """Two lengths."""

        target_tokens: int = Field(32, ge=1)
        """Completions up to this length cost nothing."""
        limit_tokens: int = Field(96, ge=2)
        """Completions of this length or more are worth 0."""

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.limit_tokens <= self.target_tokens:
                raise ValueError(
                    f"limit_tokens {self.limit_tokens} must be above target_tokens {self.target_tokens}"
                )
            return self

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        if sample.finish_reason == "length":
            return Score(0.0, "cut off at the length limit")
        room = self.config.limit_tokens - self.config.target_tokens
        value = 1.0 - (sample.num_tokens - self.config.target_tokens) / room
        return Score(min(1.0, max(0.0, value)), f"{sample.num_tokens} tokens")
