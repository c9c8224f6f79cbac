"""Word problems that need two operations, the second on the result of the first, with the reasoning in words.

Source: none, ours; the shape is that of the easier problems of GSM8K (arXiv 2110.14168). Each step is one equation inside
its sentence, on numbers of the story or results that came before.
"""

from __future__ import annotations

import operator
import random
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from pydantic import Field

from model_core.registry import registered
from model_core.rewards._equations import Equation, evaluate
from model_core.tasks._problems import ITEMS, NAMES, Levels, Problem, StepTask

_VALUES = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


@dataclass(frozen=True)
class Story:
    """`{x} first {y}` gives r, `{r} second last` the answer. `small` names the numbers that are counted in boxes or bags."""

    text: str
    first: str
    first_words: str
    second: str
    second_words: str
    last: str = "z"
    small: str = ""


STORIES = (
    Story("{a} has {x} {item}, finds {y} more and gives {z} to {b}. How many {item} does {a} have now?",
          "+", "With the new ones it is {e}", "-", "Without the gift it is {e}"),
    Story("{a} has {x} {item} and loses {y} of them. {b} gives {a} {z} more. How many {item} does {a} have now?",
          "-", "After the loss it is {e}", "+", "With the gift it is {e}"),
    Story("{a} has {x} boxes with {y} {item} in each and gives {z} {item} away. How many {item} are left?",
          "*", "The boxes hold {e}", "-", "Left are {e}", small="x"),
    Story("{a} buys {x} boxes with {y} {item} in each and has {z} {item} at home. How many {item} does {a} have?",
          "*", "The boxes hold {e}", "+", "Together it is {e}", small="x"),
    Story("{a} has {x} {item} and {b} has {y} times as many. How many {item} do they have together?",
          "*", "{b} has {e}", "+", "Together it is {e}", last="x", small="y"),
    Story("{a} has {x} {item} and {b} has {y} {item}. They put all of them into bags of {z}. How many bags do they fill?",
          "+", "Together it is {e}", "/", "The bags are {e}", small="z"),
    Story("{a} has {x} {item}, keeps {y} and shares the rest evenly among {z} friends. How many {item} does each friend get?",
          "-", "The rest is {e}", "/", "Each gets {e}", small="z"),
    Story("{a} finds {x} {item} in May and {y} in June. {b} finds {z} times as many. How many {item} does {b} find?",
          "+", "{a} finds {e}", "*", "{b} finds {e}", small="z"),
)  # fmt: skip


@registered
class TwoStepStories(StepTask):
    """Two operations told as a story."""

    name: ClassVar[str] = "two_step_stories"

    class Config(Levels):
        """How large the numbers are."""

        max_level: int = Field(3, ge=1, le=5)
        """Hardest level. The level is the number of digits of what is counted; boxes, bags, friends and "times" are 2 to 9."""

    def __init__(self, config: Config | None = None) -> None:
        self.config: TwoStepStories.Config = config or self.Config()

    def _problem(self, draw: random.Random, level: int) -> Problem:
        story = draw.choice(STORIES)
        a, b = draw.sample(NAMES, 2)
        words = {"a": a, "b": b, "item": draw.choice(ITEMS)}
        while True:  # one draw in ten or more fits, whatever the story and the level
            numbers = {name: _number(draw, level, is_small=name == story.small) for name in "xyz"}
            between = _VALUES[story.first](numbers["x"], numbers["y"])
            last = numbers[story.last]
            if between > 0 and _is_sound(between, story.second, last):
                break
        result = _VALUES[story.second](between, last)
        first = story.first_words.format(e=f"{numbers['x']}{story.first}{numbers['y']}={between}", **words)
        second = story.second_words.format(e=f"{between}{story.second}{last}={result}", **words)
        return Problem(story.text.format(**numbers, **words), f"{first}. {second}.", str(result), level,
                       {"operations": f"{story.first}{story.second}"})

    def _right(self, prompt: str, found: tuple[Equation, ...]) -> list[bool]:
        """An equation must hold and reckon with numbers of the story or results from before, not with any others."""
        known = _numbers(prompt)
        right = []
        for equation in found:
            right.append(equation.holds and _numbers(equation.left) <= known)
            known |= _numbers(equation.right)
        return right


def _number(draw: random.Random, level: int, *, is_small: bool) -> int:
    return draw.randint(2, 9) if is_small or level == 1 else draw.randint(10 ** (level - 1), 10**level - 1)


def _is_sound(value: int, sign: str, by: int) -> bool:
    """Whether the second operation leaves a whole number above 0."""
    return value > by if sign == "-" else value % by == 0 if sign == "/" else True


def _numbers(text: str) -> set[Fraction | None]:
    return {evaluate(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
