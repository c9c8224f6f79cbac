"""Keeps rows that a model solves sometimes: what it always or never solves teaches reinforcement learning nothing.

Source: DAPO (arXiv 2503.14476), section 3.2, and Kimi k1.5 (arXiv 2501.12599), section 2.1, which filter by a model's pass rate.
The rate is `pass_rate` in the row's `meta`: rows from rollouts have it, and a mapping can keep a field of that name.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop
from model_core.registry import registered

FIELD = "pass_rate"


@registered
class Difficulty:
    """Bounds on the share of right answers that a model gave."""

    class Config(StrictModel):
        """Bounds, and what happens without a rate."""

        min_pass_rate: float = Field(0.1, ge=0, le=1)
        """Rows that are solved less often are too hard."""
        max_pass_rate: float = Field(0.9, ge=0, le=1)
        """Rows that are solved more often are too easy."""
        unknown: Literal["keep", "drop"] = "keep"
        """What happens to rows that no model was asked."""

        @model_validator(mode="after")
        def _in_order(self) -> Difficulty.Config:
            if self.min_pass_rate > self.max_pass_rate:
                raise ValueError(f"min_pass_rate is {self.min_pass_rate}, above max_pass_rate, which is {self.max_pass_rate}")
            return self

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.noted: Counter[str] = Counter()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        rate = row["meta"].get(FIELD)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            if self.config.unknown == "drop":
                return Drop("unknown pass rate", f"its pass rate is unknown (it says {rate!r:.40})")
            self.noted["unknown pass rate"] += 1
            return None
        if rate < self.config.min_pass_rate:
            return Drop("too hard", f"a model solves it {rate:.0%} of the time, less than {self.config.min_pass_rate:.0%}")
        if rate > self.config.max_pass_rate:
            return Drop("too easy", f"a model solves it {rate:.0%} of the time, more than {self.config.max_pass_rate:.0%}")
        return None
