"""ARC-Challenge: 1,172 science questions with three to five choices; the letter counts, or exactly a choice's words.

Source: Clark et al., Think you have Solved Question Answering? (arXiv 1803.05457), CC BY-SA 4.0. Prompt: that of
DeepSeek-R1's usage recommendation, asking for the letter; sampling: arXiv 2501.12948, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.errors import DataError
from model_core.evaluation.benchmarks._choices import choice_in, choices_of, letter_of
from model_core.evaluation.benchmarks._types import Benchmark, Problem, Reference, SamplingConfig, text_of
from model_core.registry import registered

_ARTICLE = "“How DeepSeek-R1 Was Built”, as the article states"


@registered
class ArcChallenge(Benchmark):
    """Letters of choices."""

    title = "ARC-Challenge"
    licence = "CC BY-SA 4.0"
    source = "arXiv 1803.05457, Challenge test split, 1,172 rows"
    references = (
        Reference("DeepSeek-R1", "pass@1", 88.5, _ARTICLE),
        Reference("GPT-4", "pass@1", 90.1, _ARTICLE),
    )

    class Config(SamplingConfig):
        """The pinned settings."""

        prompt: str = "{question}\n{choices}\n\nPlease reason step by step, and put the letter of your answer within \\boxed{}."
        """What is asked; `{question}` and `{choices}` are filled in."""

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """Question, choices and the right letter."""
        choices = choices_of(row.get("choices"), number)
        expected = letter_of(text_of(row, "answerKey", number))
        if expected not in dict(choices):
            raise DataError(f"Row {number}: answerKey is {expected!r}, which is none of its choices.", field="data")
        return Problem(number, self.ask(text_of(row, "question", number), choices), expected, choices)

    def answer(self, problem: Problem, completion: str) -> str | None:
        """The chosen letter."""
        return choice_in(completion, problem.choices)
