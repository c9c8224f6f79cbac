"""Drops rows whose answer the grader cannot check: reinforcement learning would be told nothing about them.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2.2, “reliable rule-based verification”. The grader itself is asked: the
expected answer, given as an answer, must be right.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.evaluation.answers import number_of
from model_core.filters._judging import Drop
from model_core.registry import registered
from model_core.rewards._types import Sample
from model_core.rewards.solution_accuracy import SolutionAccuracy


@registered
class AnswerVerifiable:
    """Grades the row's own answer."""

    needs_answer = True

    class Config(StrictModel):
        """What counts as verifiable."""

        max_answer_chars: int = Field(200, ge=1)
        """Longer answers are texts, which no rule compares."""
        numbers_only: bool = False
        """Keeps only answers that are one number."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._grader = SolutionAccuracy()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        answer = row["answer"]
        if answer is None or not answer.strip():
            return Drop("no answer", "no answer is known")
        if len(answer) > self.config.max_answer_chars:
            return Drop("answer too long", f"the answer has {len(answer)} characters, more than {self.config.max_answer_chars}")
        if self.config.numbers_only and number_of(answer) is None:
            return Drop("no number", f"the answer “{answer}” is not one number")
        score = self._grader(Sample(
            prompt=row["prompt"], completion=f"<think></think>{answer}", expected=answer, task=row["task"], num_tokens=1,
            finish_reason="stop", meta=row.get("meta") or {},
        ))  # fmt: skip
        if score.value is None:
            return Drop("not graded", f"the grader says of the answer “{answer}”: {score.detail}")
        if score.value < 1.0:
            return Drop("not right by itself", f"the grader does not take the answer “{answer}” for itself: {score.detail}")
        return None
