"""Additions, subtractions and multiplications of several digits, worked out column by column with what is carried.

Source: none, ours. A column is an equation of single digits, from the right: `7+8=15;4+5+1=10`; what is borrowed stands
as ten, `10+2-7=5`. A product is worked digit by digit, its rows are added, and the last equation states the whole.
"""

from __future__ import annotations

import operator
import random
import re
from typing import ClassVar, Self

from pydantic import Field, model_validator

from model_core.registry import registered
from model_core.rewards._equations import Equation
from model_core.tasks._problems import Levels, Problem, StepTask
from model_core.tasks.sums import column_steps

SIGNS = {"addition": "+", "subtraction": "-", "multiplication": "*"}
_VALUES = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_PROMPT = re.compile(r"(\d{1,30})([-+*])(\d{1,30})=")


@registered
class Arithmetic(StepTask):
    """One operation on two numbers."""

    name: ClassVar[str] = "arithmetic"

    class Config(Levels):
        """How large the numbers are and what is done with them."""

        max_level: int = Field(3, ge=1, le=8)
        """Hardest level. The level is the number of digits of the operands; a multiplier has half as many, rounded up."""
        subtraction_fraction: float = Field(0.3, ge=0, le=1)
        """Share of subtractions; none has a negative result."""
        multiplication_fraction: float = Field(0.3, ge=0, le=1)
        """Share of multiplications; what both shares leave are additions."""

        @model_validator(mode="after")
        def _leaves_no_less_than_nothing(self) -> Self:
            if self.subtraction_fraction + self.multiplication_fraction > 1:
                raise ValueError(
                    f"subtraction_fraction {self.subtraction_fraction:g} and multiplication_fraction "
                    f"{self.multiplication_fraction:g} are more than 1 together; lower one of them"
                )
            return self

    def __init__(self, config: Config | None = None) -> None:
        self.config: Arithmetic.Config = config or self.Config()

    def _problem(self, draw: random.Random, level: int) -> Problem:
        place = draw.random()
        if place < self.config.subtraction_fraction:
            kind = "subtraction"
        elif place < self.config.subtraction_fraction + self.config.multiplication_fraction:
            kind = "multiplication"
        else:
            kind = "addition"
        x, y = _number(draw, level), _number(draw, (level + 1) // 2 if kind == "multiplication" else level)
        if kind == "subtraction" and x < y:
            x, y = y, x
        sign = SIGNS[kind]
        steps = worked(x, sign, y)
        return Problem(f"{x}{sign}{y}=", ";".join(steps), steps[-1].split("=")[1], level, {"operation": kind})

    def _right(self, prompt: str, found: tuple[Equation, ...]) -> list[bool]:
        """An equation must hold, and one of single digits must be a column of this very problem: a lost carry is none."""
        problem = _PROMPT.search(prompt)
        if problem is None:
            return [equation.holds for equation in found]
        columns = {step.split("=")[0] for step in worked(int(problem[1]), problem[2], int(problem[3]))}
        return [
            equation.holds and (_has_more_than_digits(equation.left) or equation.left.replace(" ", "") in columns)
            for equation in found
        ]

    def _value(self, prompt: str) -> int | None:
        problem = _PROMPT.search(prompt)
        return _VALUES[problem[2]](int(problem[1]), int(problem[3])) if problem else None


def worked(x: int, sign: str, y: int) -> list[str]:
    """The equations of `x sign y`, the last of which states the result. A subtraction needs x ≥ y; + and - equal widths."""
    columns = {"+": _added, "-": _subtracted, "*": _multiplied}[sign](x, y)
    whole = f"{x}{sign}{y}={_VALUES[sign](x, y)}"
    return columns if columns[-1] == whole else [*columns, whole]


def _added(x: int, y: int) -> list[str]:
    return column_steps(x, y).split(";")


def _subtracted(x: int, y: int) -> list[str]:
    steps, borrowed = [], 0
    for dx, dy in zip(str(x)[::-1], str(y)[::-1], strict=True):
        result = int(dx) - int(dy) - borrowed
        ten = "10+" if result < 0 else ""
        steps.append(f"{ten}{dx}-{dy}{'-1' if borrowed else ''}={result % 10}")
        borrowed = int(result < 0)
    return steps


def _multiplied(x: int, y: int) -> list[str]:
    """Each digit of y times each of x, the carry added; a row of a higher place is added to what is there already."""
    steps, total = [], 0
    for place, digit in enumerate(str(y)[::-1]):
        if digit == "0":
            continue
        steps += _row(x, int(digit))
        row = x * int(digit) * 10**place
        if total:
            steps.append(f"{total}+{row}={total + row}")
        total += row
    return steps


def _row(x: int, digit: int) -> list[str]:
    steps, carry = [], 0
    for dx in str(x)[::-1]:
        product = int(dx) * digit + carry
        steps.append(f"{dx}*{digit}{f'+{carry}' if carry else ''}={product}")
        carry = product // 10
    return steps


def _number(draw: random.Random, num_digits: int) -> int:
    return draw.randint(10 ** (num_digits - 1), 10**num_digits - 1)


def _has_more_than_digits(left: str) -> bool:
    return any(len(number) > 1 and number != "10" for number in re.findall(r"\d+", left))
