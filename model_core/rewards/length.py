"""Length: a soft punishment of completions that come near the longest allowed length.

Source: DAPO (arXiv 2503.14476), section 3.4, equation 13: 0 up to L_max − L_cache tokens, then a line down to −1 at
L_max, −1 beyond. The defaults are the paper's lengths.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._types import Sample, Score


@registered
class Length:
    """0 for a completion of comfortable length, falling to −1 at `max_tokens`."""

    bounds = (-1.0, 0.0)

    class Config(StrictModel):
        """The longest length and how early it is felt."""

        max_tokens: int = Field(20_480, ge=1)
        """Completions of this length or more are worth −1; set it to the phase's `max_new_tokens`."""
        cache_tokens: int = Field(4096, ge=1)
        """Tokens before `max_tokens` from which on a completion loses."""

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.cache_tokens > self.max_tokens:
                raise ValueError(f"cache_tokens {self.cache_tokens} must not be above max_tokens {self.max_tokens}")
            return self

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        over = sample.num_tokens - (self.config.max_tokens - self.config.cache_tokens)
        return Score(0.0 - min(1.0, max(0.0, over / self.config.cache_tokens)), f"{sample.num_tokens} tokens")
