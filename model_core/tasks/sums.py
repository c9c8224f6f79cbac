"""Sums of two numbers, bare or told as a story, with two right styles of reasoning.

Source: none, ours. Terse demonstrations write the sum at once, stepwise ones add digit by digit from the right and write
the carry. Both are correct, but the steps are far easier to learn: reinforcement learning can find that out. Bare sums
are mostly shown terse and stories mostly stepwise, so that what a cold start does on each kind does not hang on a coin.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import ConfigError
from model_core.evaluation.answers import number_of
from model_core.registry import registered
from model_core.rewards._equations import equations, evaluate
from model_core.tasks._problems import ITEMS, NAMES, is_held_out, new_problems

STORIES = (
    "{a} has {x} {item} and {b} has {y} {item}. How many {item} do they have together?",
    "{a} has {x} {item}. {b} gives {a} {y} more {item}. How many {item} does {a} have now?",
    "{a} found {x} {item} in May and {y} {item} in June. How many {item} did {a} find?",
)
PLENTY = 20
"""With so many times more prompts than wanted, no split runs short."""


@registered
class Sums:
    """Two-operand additions. A prompt is held out when the hash of it says so, whatever the seed."""

    class Config(StrictModel):
        """What the problems and the demonstrations look like."""

        num_digits: int = Field(3, ge=1, le=6)
        """Digits of each operand."""
        story_fraction: float = Field(0.72, ge=0, le=1)
        """Share of word problems; the rest are bare sums."""
        terse_fraction: float = Field(0.15, ge=0, le=1)
        """Share of the word problems' demonstrations that write the result at once instead of digit by digit."""
        bare_terse_fraction: float = Field(0.65, ge=0, le=1)
        """The same share for bare sums."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def generate(self, seed: int, num_train: int, num_held_out: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields ("train" | "held_out", row) with no prompt twice; no prompt of one split can be in the other.

        Raises ConfigError when there are not so many different prompts.
        """
        self._check_room(num_train, num_held_out)
        draw = random.Random(seed)
        problems = new_problems(
            lambda: self._problem(draw), num_train, num_held_out, field="source_config.task_config.story_fraction",
            remedy=f"move story_fraction, now {self.config.story_fraction:g}, to what there are more problems of",
        )
        for split, (is_story, prompt, x, y) in problems:
            terse = draw.random() < (self.config.terse_fraction if is_story else self.config.bare_terse_fraction)
            reasoning = f"{x}+{y}={x + y}" if terse else column_steps(x, y)
            yield split, {
                "prompt": prompt, "completion": f"<think>{reasoning}</think>{x + y}", "answer": str(x + y),
                "task": "sums", "level": self.config.num_digits, "meta": {"style": "terse" if terse else "stepwise"},
            }  # fmt: skip

    def verify(self, expected: str, answer: str, meta: Mapping[str, Any] | None = None) -> bool:
        """Whether the answer text is the expected number."""
        return number_of(answer) == number_of(expected) is not None

    def check_steps(self, prompt: str, reasoning: str) -> tuple[int, int]:
        """How many equations of the reasoning are right and how many wrong; a carry that was lost is wrong."""
        found = equations(reasoning)
        right = sum(equation.holds for equation in found)
        if right == len(found) > 0 and not _adds_up(prompt, self.conclusion(prompt, reasoning)):
            return right - 1, 1
        return right, len(found) - right

    def conclusion(self, prompt: str, reasoning: str) -> str | None:
        """The number that the reasoning arrives at: its one result, or the digits of its columns put together."""
        found = equations(reasoning)
        if not found:
            return None
        if len(found) == 1 and len(found[0].left) > 2 * self._width(prompt):
            return found[0].right
        return found[-1].right + "".join(equation.right[-1] for equation in reversed(found[:-1]))

    def _check_room(self, num_train: int, num_held_out: int) -> None:
        """Counts the prompts that there are, split by split, where they are not far more than wanted anyway."""
        if self._num_prompts() > PLENTY * (num_train + num_held_out):
            return
        held_out = [is_held_out(prompt) for prompt in self._prompts()]
        for split, wanted, exist in (
            ("num_held_out", num_held_out, sum(held_out)), ("num_train", num_train, len(held_out) - sum(held_out))
        ):
            if wanted > exist:
                raise ConfigError(
                    f"{split} is {wanted}, but only {exist} different problems of {self.config.num_digits} digits exist for "
                    "it; lower it or raise num_digits.", field=f"source_config.{split}",
                )

    def _num_prompts(self) -> int:
        num_operands = 9 * int("1" + "0" * (self.config.num_digits - 1))
        num_stories = len(NAMES) * len(ITEMS) * (2 * (len(NAMES) - 1) + 1)
        forms = (1 if self.config.story_fraction < 1 else 0) + (num_stories if self.config.story_fraction > 0 else 0)
        return num_operands * num_operands * forms

    def _prompts(self) -> Iterator[str]:
        """Every prompt once; the last story names one person only."""
        low, high = 10 ** (self.config.num_digits - 1), 10**self.config.num_digits
        for x, y in itertools.product(range(low, high), repeat=2):
            if self.config.story_fraction < 1:
                yield f"{x}+{y}="
            if self.config.story_fraction > 0:
                yield from {
                    story.format(a=a, b=b, x=x, y=y, item=item)
                    for story in STORIES for a, b in itertools.permutations(NAMES, 2) for item in ITEMS
                }

    def _width(self, prompt: str) -> int:
        return max((len(number) for number in re.findall(r"\d+", prompt)), default=0)

    def _problem(self, draw: random.Random) -> tuple[str, tuple[bool, str, int, int]]:
        is_story = draw.random() < self.config.story_fraction
        low, high = 10 ** (self.config.num_digits - 1), 10**self.config.num_digits - 1
        x, y = draw.randint(low, high), draw.randint(low, high)
        if not is_story:
            prompt = f"{x}+{y}="
        else:
            a, b = draw.sample(NAMES, 2)
            prompt = draw.choice(STORIES).format(a=a, b=b, x=x, y=y, item=draw.choice(ITEMS))
        return prompt, (is_story, prompt, x, y)


def column_steps(x: int, y: int) -> str:
    """The column addition of x and y, least significant digit first, carries written: `3+2=5;7+8=15;4+5+1=10`."""
    steps, carry = [], 0
    digits_x, digits_y = str(x)[::-1], str(y)[::-1]
    for dx, dy in zip(digits_x, digits_y, strict=True):
        total = int(dx) + int(dy) + carry
        steps.append(f"{dx}+{dy}{'+1' if carry else ''}={total}")
        carry = total // 10
    return ";".join(steps)


def _adds_up(prompt: str, conclusion: str | None) -> bool:
    if conclusion is None:
        return False
    value, *numbers = (evaluate(number) for number in (conclusion, *re.findall(r"\d+", prompt)))
    known = [number for number in numbers if number is not None]
    return value is not None and len(known) == len(numbers) and value == sum(known)
