"""What generated tasks share: levels, new problems for both splits, and reasoning that is a row of equations.

A prompt is held out when the hash of it says so, whatever the seed, the task and its settings: no prompt can be in both
splits, also not when two versions of a dataset are made with different settings.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.errors import ConfigError
from model_core.evaluation.answers import number_of
from model_core.rewards._equations import Equation, equations

HELD_OUT_ONE_IN = 5
MAX_IN_VAIN = 300_000
"""Draws in a row without a new problem after which there are taken to be no more; about two seconds."""
NAMES = ("Leo", "Max", "Ana", "Mia", "Tom", "Eva", "Sam", "Ida", "Ben", "Zoe")
ITEMS = ("keys", "books", "coins", "cards", "stamps", "shells", "marbles", "apples", "stones", "pens")
T = TypeVar("T")


class Levels(StrictModel):
    """Base of the settings of a task whose problems have a level; a task says what its levels are."""

    min_level: int = Field(1, ge=1)
    """Easiest level."""
    max_level: int = Field(3, ge=1)
    """Hardest level; all from the easiest on are drawn equally often."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.min_level > self.max_level:
            raise ValueError(f"min_level is {self.min_level}, above max_level {self.max_level}; lower it or raise the other")
        return self


@dataclass(frozen=True)
class Problem:
    """One generated problem. `reasoning` is a demonstration whose last equation states `answer`."""

    prompt: str
    reasoning: str
    answer: str
    level: int
    meta: dict[str, Any] = field(default_factory=dict)


class StepTask:
    """Base of the tasks whose reasoning is equations, worked out one after another; the last one states the answer."""

    name: ClassVar[str]
    """File name in this folder."""
    Config: ClassVar[type[Levels]]
    config: Levels

    def generate(self, seed: int, num_train: int, num_held_out: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields ("train" | "held_out", row) with no prompt twice; no prompt of one split can be in the other.

        Where a level runs out of problems the others make up for it. Raises ConfigError when all have run out.
        """
        draw = random.Random(seed)

        def one() -> tuple[str, Problem]:
            problem = self._problem(draw, draw.randint(self.config.min_level, self.config.max_level))
            return problem.prompt, problem

        for split, problem in new_problems(one, num_train, num_held_out, remedy="raise max_level"):
            yield split, {
                "prompt": problem.prompt, "completion": f"<think>{problem.reasoning}</think>{problem.answer}",
                "answer": problem.answer, "task": self.name, "level": problem.level, "meta": problem.meta,
            }  # fmt: skip

    def verify(self, expected: str, answer: str, meta: Mapping[str, Any] | None = None) -> bool:
        """Whether the answer text is the expected number."""
        return number_of(answer) == number_of(expected) is not None

    def check_steps(self, prompt: str, reasoning: str) -> tuple[int, int]:
        """How many equations of the reasoning are right and how many wrong; a conclusion that is not the prompt's is wrong."""
        found = equations(reasoning)
        right = sum(self._right(prompt, found))
        value = self._value(prompt)
        if right == len(found) > 0 and value is not None and number_of(found[-1].right) != value:
            return right - 1, 1
        return right, len(found) - right

    def conclusion(self, prompt: str, reasoning: str) -> str | None:
        """The number that the reasoning arrives at: the result of its last equation."""
        found = equations(reasoning)
        return found[-1].right if found else None

    def _problem(self, draw: random.Random, level: int) -> Problem:
        raise NotImplementedError

    def _right(self, prompt: str, found: tuple[Equation, ...]) -> list[bool]:
        """Of each equation, whether it is a right step of this problem."""
        raise NotImplementedError

    def _value(self, prompt: str) -> int | None:
        """What the prompt comes to, where its text alone tells."""
        return None


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the held-out fifth; a fixed function of the text."""
    return hashlib.sha256(prompt.encode()).digest()[0] % HELD_OUT_ONE_IN == 0


def new_problems(
    draw: Callable[[], tuple[str, T]], num_train: int, num_held_out: int, *, remedy: str, field: str = "",
    max_in_vain: int = MAX_IN_VAIN,
) -> Iterator[tuple[str, T]]:
    """Yields (split, what `draw` gave with the prompt) for prompts that did not come before, as many as wanted of each.

    Raises ConfigError at `field`, else at the split's number, when `max_in_vain` draws in a row gave nothing new.
    """
    seen, in_vain = set[str](), 0
    wanted = {"train": num_train, "held_out": num_held_out}
    while any(wanted.values()):
        prompt, drawn = draw()
        split = "held_out" if is_held_out(prompt) else "train"
        if not wanted[split] or prompt in seen:
            in_vain += 1
            if in_vain >= max_in_vain:
                raise _no_more(wanted, num_train, num_held_out, in_vain=in_vain, remedy=remedy, field=field)
            continue
        seen.add(prompt)
        wanted[split] -= 1
        in_vain = 0
        yield split, drawn


def _no_more(
    missing: dict[str, int], num_train: int, num_held_out: int, *, in_vain: int, remedy: str, field: str
) -> ConfigError:
    split, wanted = ("num_train", num_train) if missing["train"] else ("num_held_out", num_held_out)
    found = wanted - missing[split.removeprefix("num_")]
    return ConfigError(
        f"{split} is {wanted}, but only {found} different problems were found for it: {in_vain} more draws gave none. "
        f"Lower it, or {remedy}.", field=field or f"source_config.{split}",
    )  # fmt: skip
