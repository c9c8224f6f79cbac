"""Finds and recomputes the equations of a reasoning: `3+2=5`, `12 * 4 = 48`, `<<48/2=24>>`; chains `1+2=3=3` too.

The text is a model's and may be anything: one pass over it, in time that grows with its length and not with its square.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_DIGITS = r"\d++(?:\.\d++)?+"
_LEFT = re.compile(rf"(?<![\w.])-?{_DIGITS}(?:\s*+[-+*/×·]\s*+-?{_DIGITS})*+")
_RIGHT = re.compile(rf"\s*+=\s*+(-?{_DIGITS})(?![\w.]*\d)")
_TERM = re.compile(rf"\s*([-+*/×·]?)\s*(-?{_DIGITS})")
MAX_DIGITS = 30


@dataclass(frozen=True)
class Equation:
    """One `left = right` as written, and whether it holds."""

    left: str
    right: str
    holds: bool


@lru_cache(maxsize=1024)
def equations(text: str) -> tuple[Equation, ...]:
    """Every equation with an operation on its left, in order of appearance."""
    found, place = [], 0
    while side := _LEFT.search(text, place):
        result = _RIGHT.match(text, side.end())
        place = side.end() if result is None else result.end()
        if result is not None and re.search(r"\d\s*[-+*/×·]", side[0]):
            value = evaluate(side[0])
            found.append(Equation(side[0], result[1], value is not None and value == evaluate(result[1])))
    return tuple(found)


def evaluate(side: str) -> Fraction | None:
    """Exact value of a sum of products; None for a division by zero or a number of absurd length."""
    if any(len(number) > MAX_DIGITS for number in re.findall(r"\d+", side)):
        return None
    total, product = Fraction(0), Fraction(0)
    for operator, number in _TERM.findall(side):
        value = Fraction(number)
        if operator in {"*", "×", "·"}:
            product *= value
        elif operator == "/":
            if value == 0:
                return None
            product /= value
        else:
            total += product
            product = -value if operator == "-" else value
    return total + product
