"""Solution accuracy: is the answer right?

Source: “How DeepSeek-R1 Was Built”, reward with weight 0.3; the accuracy reward of DeepSeek-R1 (arXiv 2501.12948,
section 2.2.2). A row's task is asked; otherwise `model_core.evaluation.answers` compares numbers, choices, mathematics
and text. Programs are judged by the reward `code`.
"""

from __future__ import annotations

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import Undecided
from model_core.evaluation.answers import number_of, same_answer
from model_core.evaluation.extraction import final_answer, final_number
from model_core.registry import registered
from model_core.rewards._types import Sample, Score
from model_core.tasks import TASKS


@registered
class SolutionAccuracy:
    """1 for the expected answer, 0 for another; unscored where none is known."""

    bounds = (0.0, 1.0)
    needs_answer = True
    decides_correct = True

    class Config(StrictModel):
        """How long a task's verifier may take."""

        deadline_seconds: float = Field(5.0, gt=0, le=600)
        """Seconds after which a verifier that is not ours is ended; the completion is then unscored."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def may_hang(self, sample: Sample) -> bool:
        """Whether the task's verifier is code of others."""
        return bool(sample.task) and bool(getattr(TASKS.get(sample.task), "may_hang", False))

    def __call__(self, sample: Sample) -> Score:
        if sample.expected is None:
            return Score.unscored("no expected answer is known for this prompt")
        try:
            right = self._is_right(sample, sample.expected)
        except Undecided as error:
            return Score.unscored(error.message)
        if right is None:
            return Score.unscored(f"the task “{sample.task}” cannot tell without what it put into the row")
        return Score(float(right), f"{'right' if right else 'wrong'}: {sample.answer[:40]!r}, expected {sample.expected!r}")

    def _is_right(self, sample: Sample, expected: str) -> bool | None:
        if not sample.task:
            return same_answer(expected, sample.answer) or _says(expected, sample.answer)
        right: bool | None = TASKS.get(sample.task)().verify(expected, sample.answer, sample.meta)
        return right


def _says(expected: str, answer: str) -> bool:
    """Whether the answer, read as a benchmark reads it, ends in what is expected."""
    found = final_answer(answer) if number_of(expected) is None else final_number(answer)
    return found is not None and found != answer and same_answer(expected, found)
