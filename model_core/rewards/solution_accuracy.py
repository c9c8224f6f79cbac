"""Solution accuracy: is the answer right?

Source: “How DeepSeek-R1 Was Built”, reward with weight 0.3; the accuracy reward of DeepSeek-R1 (arXiv 2501.12948,
section 2.2.2). A task of ours is asked; otherwise numbers are compared as numbers and everything else as text.
"""

from __future__ import annotations

from model_core.config.base import StrictModel
from model_core.evaluation.answers import same_answer
from model_core.registry import registered
from model_core.rewards._types import Sample, Score
from model_core.tasks import TASKS


@registered
class SolutionAccuracy:
    """1 for the expected answer, 0 for another; unscored where none is known."""

    bounds = (0.0, 1.0)
    needs_answer = True

    class Config(StrictModel):
        """No settings."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        if sample.expected is None:
            return Score.unscored("no expected answer is known for this prompt")
        if sample.task:
            right = TASKS.get(sample.task)().verify(sample.expected, sample.answer)
        else:
            right = same_answer(sample.expected, sample.answer)
        return Score(float(right), f"{'right' if right else 'wrong'}: {sample.answer[:40]!r}, expected {sample.expected!r}")
