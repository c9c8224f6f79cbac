"""What every benchmark is: how a row becomes a problem, how a completion is graded, how it is sampled, what others reached.

A completion that says nothing usable is wrong: a model has to answer. One that cannot be judged is unscored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import ConfigError, DataError, Undecided
from model_core.evaluation.answers import same_answer
from model_core.evaluation.extraction import final_answer


class SamplingConfig(StrictModel):
    """How a benchmark asks. The defaults are pinned: two results are comparable when these agree."""

    prompt: str = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    """What is asked; `{question}` and, where there are some, `{choices}` are filled in."""
    num_samples: int = Field(4, ge=1, le=1024)
    """Completions of each problem; pass@1 is the mean over them."""
    temperature: float = Field(0.6, ge=0, le=2)
    """Temperature of sampling; 0 answers greedily."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Share of the probability that is sampled from."""
    max_new_tokens: int = Field(32768, ge=1)
    """Longest completion, in tokens; a model with less context gets what is left of it."""


@dataclass(frozen=True)
class Reference:
    """A figure that someone published, in per cent, and where it stands."""

    model: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Problem:
    """One row of the data: what is asked, what is right. `choices` are (label, text); `task` and `meta` are of generated rows."""

    row: int
    prompt: str
    expected: str
    choices: tuple[tuple[str, str], ...] = ()
    task: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Grade:
    """`correct` None is unscored; `answer` None means that none was found. `reason` says why it is not plainly right."""

    correct: bool | None
    answer: str | None
    reason: str = ""


class Benchmark:
    """Base of the benchmarks; each file gives its figures, its Config, `problem` and how an answer is found."""

    title: ClassVar[str]
    licence: ClassVar[str]
    source: ClassVar[str]
    references: ClassVar[tuple[Reference, ...]] = ()

    class Config(SamplingConfig):
        """The pinned settings."""

    def __init__(self, config: SamplingConfig | None = None) -> None:
        self.config = config or self.Config()
        if "{question}" not in self.config.prompt:
            raise ConfigError("The prompt has no place for the question; write {question} where it belongs.", field="prompt")

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """The problem of row `number` of the data. Raises DataError for a row without its fields."""
        raise NotImplementedError

    def grade(self, problem: Problem, completion: str) -> Grade:
        """Finds the answer and judges it; never raises for what a model wrote."""
        answer = self.answer(problem, completion)
        if answer is None:
            return Grade(False, None, "no answer was found" if completion.strip() else "the completion is empty")
        try:
            return Grade(self.is_right(problem, answer), answer)
        except Undecided as error:
            return Grade(None, answer, error.message)

    def answer(self, problem: Problem, completion: str) -> str | None:
        """The final answer of a completion, None when there is none."""
        return final_answer(completion)

    def is_right(self, problem: Problem, answer: str) -> bool | None:
        """Whether an answer that was found is the problem's; None when nobody can tell. Raises Undecided."""
        return self.same(problem.expected, answer)

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are one. Raises Undecided."""
        return same_answer(one, other)

    def ask(self, question: str, choices: Sequence[tuple[str, str]] = ()) -> str:
        """The prompt of a question; a brace in the question stays a brace."""
        listed = "\n".join(f"{label}. {text}" for label, text in choices)
        if choices and "{choices}" not in self.config.prompt:
            question = f"{question}\n{listed}"
        head, _place, tail = self.config.prompt.partition("{question}")
        return head.replace("{choices}", listed) + question + tail.replace("{choices}", listed)


def text_of(row: Mapping[str, Any], field: str, number: int) -> str:
    """The text or number in `field`. Raises DataError when it is missing, empty or something else."""
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or str(value).strip() in {"", "nan", "inf", "-inf"}:
        has = f"it is {value!r:.60}" if field in row else f"it has {', '.join(map(str, row)) or 'no field'}"
        raise DataError(f"Row {number}: the field “{field}” must be text, but {has}. Mend the file.", field="data")
    return str(value)
