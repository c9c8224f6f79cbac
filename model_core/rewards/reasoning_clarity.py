"""Reasoning clarity: are the steps shown, without rambling, and then the thinking closed?

Source: “How DeepSeek-R1 Was Built”, reward with weight 0.2; the article does not define it. Ours counts steps
(equations, else sentences) against how many are wanted, and falls again beyond twice as many. A bare result in one
step is therefore less clear than the same result worked out.
"""

from __future__ import annotations

import re

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._equations import equations
from model_core.rewards._types import Sample, Score


@registered
class ReasoningClarity:
    """Steps over wanted steps, at most 1; from twice the wanted number on it falls again."""

    bounds = (0.0, 1.0)

    class Config(StrictModel):
        """How many steps are enough."""

        num_steps: int = Field(3, ge=1)
        """Steps that count as fully shown."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        if "</think>" not in sample.completion:
            return Score(0.0, "the thinking is not closed")
        steps = sum(equation.num_steps for equation in equations(sample.reasoning)) or len(_sentences(sample.reasoning))
        if not steps:
            return Score(0.0, "no step is shown")
        shown = min(1.0, steps / self.config.num_steps)
        rambling = min(1.0, 2 * self.config.num_steps / steps)
        return Score(shown * rambling, f"{steps} steps, {self.config.num_steps} wanted")


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[.\n;]+", text) if part.strip()]
