"""Finds and recomputes the equations of a reasoning: `3+2=5`, `<<48/2=24>>`, `2*3+4 = 6+4 = 10`, `x = 5; 2x + 1 = 11`.

A chain of equal sides is one equation; it holds when all of them are equal. `=` wants exactly equal sides, `≈` sides that
agree as far as they are written. How a side is read is in `_arithmetic`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from model_core.rewards._arithmetic import MAX_DIGITS, Odd, Reader, Side, Value

__all__ = ["MAX_DIGITS", "Equation", "agree", "equations", "evaluate"]

_RELATION = re.compile("[=≈≃]|\\\\approx")
_MEASURES = frozenset((
    "km", "m", "cm", "mm", "kg", "g", "mg", "h", "hour", "hours", "minute", "minutes", "min", "s", "second", "seconds", "day",
    "days", "week", "weeks", "month", "months", "year", "years", "l", "liter", "liters", "ml", "inch", "inches", "feet", "ft",
    "yard", "yards", "mile", "miles", "dollar", "dollars", "cent", "cents", "dozen", "pound", "pounds", "ounce", "ounces",
))  # fmt: skip
"""Units between which people convert: `2*30 minutes = 1 hour` is not false."""


@dataclass(frozen=True)
class Equation:
    """A row of equal sides as written, and whether it holds."""

    left: str
    """The first side."""
    right: str
    """The last side: what it comes to."""
    holds: bool
    num_steps: int = 1
    """Sides with an operation before the last one: the working that it shows."""


@lru_cache(maxsize=1024)
def equations(text: str) -> tuple[Equation, ...]:
    """Every equation in which something is computed, in order of appearance.

    `x = 5` computes nothing and gives the name its number; a side with a name that has none is left out.
    """
    if not _RELATION.search(text):
        return ()
    reader, found, at = Reader(text), [], 0
    while reader.kinds[at] != "end":
        read = _side(reader, at)
        if read is None:
            at += 1
            continue
        sides, signs, at = _chain(reader, *read)
        if len(sides) > 1:
            _name_it(reader.names, sides)
            equation = _equation([(side, sign) for side, sign in zip(sides, signs, strict=True) if side.value is not Odd.UNKNOWN])
            if equation is not None:
                found.append(equation)
    return tuple(found)


@lru_cache(maxsize=1024)
def evaluate(side: str) -> Fraction | None:
    """Exact value of a side; None when it is not one, divides by zero, or has a number of absurd length."""
    read = _whole(side)
    return None if read is None or isinstance(read.value, Odd) else Fraction(read.value)


def agree(conclusion: str, answer: str) -> bool:
    """Whether an answer states the number that a reasoning arrived at; an answer that is still to be computed states none."""
    arrived, said = _whole(conclusion), _whole(answer.rpartition("=")[2])
    return arrived is not None and said is not None and said.operations in {"", "/"} and are_equal(arrived, said)


def are_equal(left: Side, right: Side, *, is_about: bool = False) -> bool:
    """Whether two sides have the same value; a percent sign may also be a unit, as in `5/25*100 = 20%`."""
    one, other = left.value, right.value
    if isinstance(one, Odd) or isinstance(other, Odd):
        return False
    if one == other or (right.is_percent and one == other * 100) or (left.is_percent and one * 100 == other):
        return True
    if not (is_about or right.is_rounded or left.is_rounded):
        return False
    places = [side.places for side in (left, right) if side.places is not None]
    room = Fraction(1, 10 ** min(places)) if places else max(abs(Fraction(one)), abs(Fraction(other))) / 100
    return abs(Fraction(one) - other) < room


def _whole(text: str) -> Side | None:
    """A text that is one side and nothing else: `$1,000`, `\\boxed{\\frac{1}{2}}`, `12 apples.`"""
    reader = Reader(text.strip())
    read = reader.side(0)
    rest = [] if read is None else [reader.word(at) for at in range(read[1], len(reader.starts))]
    return None if read is None or any(word not in {".", "!"} for word in rest) else read[0]


def _chain(reader: Reader, first: Side, at: int) -> tuple[list[Side], list[str], int]:
    """The sides that are said to be equal to `first`, the sign before each, and the token after the last."""
    sides, signs = [first], [""]
    while True:
        here = at + 1 if reader.kinds[at] == "newline" else at
        read = _side(reader, here + 1) if reader.kinds[here] in {"equal", "about"} else None
        if read is None:
            return sides, signs, at
        sides.append(read[0])
        signs.append(reader.kinds[here])
        at = read[1]


def _side(reader: Reader, at: int) -> tuple[Side, int] | None:
    """A side, which is unknown where only a piece of it could be read."""
    read = reader.side(at)
    return (replace(read[0], value=Odd.UNKNOWN), read[1]) if read is not None and reader.is_fragment(at, read[1]) else read


def _name_it(names: dict[str, Value], sides: Sequence[Side]) -> None:
    """`x = 3 + 4` and `12/2 = y` give the name its number; a name with two numbers stands for neither."""
    known = [side.value for side in sides if not side.name and side.value is not Odd.UNKNOWN]
    for side in (sides[0], sides[-1]):
        if side.name and known:
            names[side.name] = known[-1] if names.get(side.name, known[-1]) == known[-1] else Odd.UNKNOWN


def _equation(known: Sequence[tuple[Side, str]]) -> Equation | None:
    sides = [side for side, _sign in known if not side.name]
    if len(sides) < 2 or not any(side.operations for side in sides):
        return None
    holds = all(
        are_equal(left, right, is_about=sign == "about")
        for (left, _), (right, sign) in itertools.pairwise(known)
        if not left.name and not right.name
    )
    if not holds and _converts(sides):
        return None
    num_steps = sum(bool(side.operations) for side in sides[:-1])
    return Equation(sides[0].text, sides[-1].text, holds, max(1, num_steps))


def _converts(sides: Sequence[Side]) -> bool:
    return len({side.unit for side in sides if side.unit in _MEASURES}) > 1
