"""Problems of your own: a JSONL file with a question and an answer a line, and choices where there are some.

Source: none, ours. Numbers, LaTeX, words and choices are told apart by the answers themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.errors import DataError
from model_core.evaluation.answers import number_of
from model_core.evaluation.benchmarks._choices import choice_in, choices_of, letter_of
from model_core.evaluation.benchmarks._types import Benchmark, Problem, SamplingConfig, text_of
from model_core.evaluation.extraction import final_answer, final_number
from model_core.registry import registered


@registered
class Custom(Benchmark):
    """A benchmark from a file; nothing was published on it, so it has no reference figures."""

    title = "Your own"
    licence = "yours"
    source = "a JSONL file"
    config: Config

    class Config(SamplingConfig):
        """How it asks, and which field is what."""

        question_field: str = "question"
        """Field with the question."""
        answer_field: str = "answer"
        """Field with the right answer; with choices: a letter, or exactly the words of a choice."""
        choices_field: str = "choices"
        """Field with the choices; rows without it have none."""

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """Question, right answer and, where the row has some, choices."""
        question, answer = text_of(row, self.config.question_field, number), text_of(row, self.config.answer_field, number).strip()
        if row.get(self.config.choices_field) is None:
            return Problem(number, self.ask(question), answer)
        choices = choices_of(row[self.config.choices_field], number)
        labels = [label for label, text in choices if letter_of(answer) == label or answer == text.strip()]
        if len(labels) != 1:
            raise DataError(f"Row {number}: the answer is {answer!r:.60}, which is not one of its choices.", field="data")
        return Problem(number, self.ask(question, choices), labels[0], choices)

    def answer(self, problem: Problem, completion: str) -> str | None:
        """By the kind of the right answer: a choice, a number, or anything."""
        if problem.choices:
            return choice_in(completion, problem.choices)
        return final_answer(completion) if number_of(problem.expected) is None else final_number(completion)
