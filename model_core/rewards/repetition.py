"""Repetition: a punishment of text that says the same again.

Source: “Demystifying Long Chain-of-Thought Reasoning” (arXiv 2502.03373), n-gram repetition penalty against reward hacking.
Ours looks at the whole completion and gives one number instead of one a token: minus the share of its n-grams that were
there before, beyond what ordinary text has.
"""

from __future__ import annotations

import re

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._types import Sample, Score

_WORD = re.compile(r"\w+|[^\w\s]")


@registered
class Repetition:
    """0 for text that repeats little, down to −1 for one that says a single thing over and over."""

    bounds = (-1.0, 0.0)

    class Config(StrictModel):
        """What counts as a repetition."""

        ngram_words: int = Field(4, ge=1, le=100)
        """Words or signs in a row that are compared."""
        free_fraction: float = Field(0.2, ge=0, lt=1)
        """Share of repeated n-grams that costs nothing; reasoning repeats its terms."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        repeated = repeated_fraction(sample.completion, self.config.ngram_words)
        over = max(0.0, repeated - self.config.free_fraction) / (1.0 - self.config.free_fraction)
        return Score(0.0 - over, f"{repeated:.0%} of {self.config.ngram_words}-grams are repetitions")


def repeated_fraction(text: str, size: int) -> float:
    """Share of the n-grams of `size` words that stood in the text before; 0 for a text without any."""
    words = _WORD.findall(text)
    num_grams = len(words) - size + 1
    return 1.0 - len(set(zip(*(words[place:] for place in range(size)), strict=False))) / num_grams if num_grams > 0 else 0.0
