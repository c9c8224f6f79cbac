"""Logical consistency: do the equations hold, and does the answer follow from them?

Source: “How DeepSeek-R1 Was Built”, reward with weight 0.4. The article does not define it. Ours is the mean of two
halves: the share of the reasoning's equations that are true when recomputed, and whether the answer is what the
reasoning arrives at. A reasoning without any equation has no step that could be true: its first half is 0.
"""

from __future__ import annotations

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._equations import agree, equations
from model_core.rewards._types import Sample, Score
from model_core.tasks import TASKS


@registered
class LogicalConsistency:
    """Half for true equations, half for an answer that agrees with them."""

    bounds = (0.0, 1.0)

    class Config(StrictModel):
        """No settings."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        found = equations(sample.reasoning)
        if not found:
            return Score(0.0, "no equation in the reasoning")
        right, conclusion = sum(equation.holds for equation in found), None
        if sample.task:
            task = TASKS.get(sample.task)()
            right, _wrong = task.check_steps(sample.prompt, sample.reasoning)
            conclusion = task.conclusion(sample.prompt, sample.reasoning)
        agrees = agree(found[-1].right if conclusion is None else conclusion, sample.answer)
        said = f"{right} of {len(found)} steps hold; the answer {'follows' if agrees else 'does not follow'}"
        return Score((right / len(found) + agrees) / 2, said)
