"""Generated problems of `model_core.tasks`: rows as a prepared dataset has them, each judged by the verifier of its own task.

Source: none, ours; the problems of a task are held out by the hash of their prompt, so no run has trained on them. Sampling:
arXiv 2501.12948, section 3. The prompt is the bare question, as runs are trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from model_core.errors import DataError
from model_core.evaluation.answers import number_of
from model_core.evaluation.benchmarks._types import Benchmark, Grade, Problem, SamplingConfig, text_of
from model_core.evaluation.extraction import BY_MARK, final_answer, final_number
from model_core.registry import registered
from model_core.rewards._apart import Apart
from model_core.rewards._types import Sample, Score
from model_core.rewards.solution_accuracy import SolutionAccuracy
from model_core.tasks import TASKS


def _whole(text: str) -> str:
    return text.strip()


@registered
class Task(Benchmark):
    """Numbers by the task's verifier; answers of reasoning-gym by its own, in a process that ends at a deadline."""

    title = "Generated task"
    licence = "generated"
    source = "problems of a task, from a seed; the held-out fifth of its prompts"

    class Config(SamplingConfig):
        """The pinned settings."""

        prompt: str = "{question}"
        """What is asked; `{question}` is filled in."""

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """Prompt and answer, with what the task put into the row."""
        prompt, expected, name = (text_of(row, field, number) for field in ("prompt", "answer", "task"))
        if name not in TASKS.names():
            raise DataError(f"Row {number}: there is no task {name!r:.60}; there are {', '.join(TASKS.names())}.", field="data")
        return Problem(number, self.ask(prompt), expected.strip(), task=name, meta=row.get("meta") or {})

    def answer(self, problem: Problem, completion: str) -> str | None:
        """By the right answer's kind: a number wherever a mark's text holds one, else a mark's text, else all that was said."""
        if number_of(problem.expected) is not None:
            return final_number(completion)
        return final_answer(completion, (*BY_MARK, _whole))

    def is_right(self, problem: Problem, answer: str) -> bool | None:
        """As the task's verifier judges the answer; None when it cannot tell."""
        value = self._scored(problem, answer).value
        return None if value is None else value >= 1

    def grade(self, problem: Problem, completion: str) -> Grade:
        """Finds the answer and has the verifier judge it."""
        answer = self.answer(problem, completion)
        if answer is None:
            return Grade(False, None, "no answer was found" if completion.strip() else "the completion is empty")
        score = self._scored(problem, answer)
        return Grade(None, answer, score.detail) if score.value is None else Grade(score.value >= 1, answer)

    def _scored(self, problem: Problem, answer: str) -> Score:
        sample = Sample(problem.prompt, answer, problem.expected, problem.task, 0, "stop", problem.meta)
        return self._apart.score([sample])[0] if self._accuracy.may_hang(sample) else self._accuracy(sample)

    @cached_property
    def _accuracy(self) -> SolutionAccuracy:
        return SolutionAccuracy()

    @cached_property
    def _apart(self) -> Apart:
        config = self._accuracy.config
        return Apart(SolutionAccuracy, config, deadline_seconds=config.deadline_seconds)
