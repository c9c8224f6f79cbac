"""What a benchmark of a deployment asks: the plan, and the prompts that follow from it.

Prompts are held-out ones of a dataset version, or rows of random numbers: those any tokenizer cuts, and no two share a
beginning that a prefix cache could have.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field, field_validator

from model_core.config import StrictModel
from model_core.errors import DataError
from training_app.models import DatasetVersion
from training_app.selectors.datasets import version_rows

MAX_AT_ONCE = 512
MAX_PROMPTS = 2000
"""Rows of a dataset that are asked in turn."""
LONGEST_LEVEL_SECONDS = 3600


class BenchmarkPlan(StrictModel):
    """How much is asked at once, how often, and how long prompts and answers are."""

    concurrency: list[int] = Field(default=[1, 2, 4, 8], min_length=1, max_length=16)
    """Streams at once, one level each, rising, between 1 and 512."""
    num_requests: int = Field(32, ge=1, le=10_000)
    """Requests at each level; at least as many as run at once."""
    level_seconds: int = Field(60, ge=1, le=LONGEST_LEVEL_SECONDS)
    """Seconds after which a level ends; answers that run then are cut."""
    prompt_tokens: int = Field(128, ge=1, le=1_000_000)
    """Tokens of a prompt, about; of a dataset's prompts they are what they are."""
    answer_tokens: int = Field(128, ge=1, le=131_072)
    """Tokens of an answer at most; the model may end it earlier."""
    ignore_end: bool = False
    """Has every answer written to its full length, even where the model has ended it; SGLang can."""

    @field_validator("concurrency")
    @classmethod
    def _rising(cls, levels: list[int]) -> list[int]:
        if any(not 1 <= level <= MAX_AT_ONCE for level in levels) or sorted(set(levels)) != levels:
            raise ValueError(f"levels rise and lie between 1 and {MAX_AT_ONCE} streams, such as [1, 2, 4, 8]; they are {levels}")
        return levels

    def requests_at(self, concurrency: int) -> int:
        """Requests of one level."""
        return max(self.num_requests, concurrency)

    @property
    def num_planned(self) -> int:
        """Requests of all levels."""
        return sum(self.requests_at(concurrency) for concurrency in self.concurrency)


def made_prompt(seed: int, num_words: int) -> str:
    """So many random numbers; another seed begins with other ones."""
    draw = random.Random(seed)
    return " ".join(str(draw.randrange(10, 1000)) for _ in range(num_words))


def words_for(tokens: int, measured: Sequence[tuple[int, int]]) -> int:
    """How many numbers make a prompt of `tokens`, by two (numbers, tokens) that an engine has counted."""
    (few, tokens_few), (many, tokens_many) = measured
    each = (tokens_many - tokens_few) / (many - few)
    if each <= 0:
        return tokens
    return max(1, round(few + (tokens - tokens_few) / each))


def held_out_prompts(version: DatasetVersion) -> list[str]:
    """The first held-out prompts of a version. Raises DataError when its files are not here or it has none."""
    found = [str(row["prompt"]) for row in version_rows(version, "held_out", 0, MAX_PROMPTS)]
    if not found:
        raise DataError(f"{version} has no held-out rows. Choose another version, or made prompts.", field="dataset_version")
    return found
