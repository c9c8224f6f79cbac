"""Finds and recomputes the equations of a reasoning: `3+2=5`, `12 * 4 = 48`, `<<48/2=24>>`; chains `1+2=3=3` too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_NUMBER = r"-?\d+(?:\.\d+)?"
_SIDE = rf"{_NUMBER}(?:\s*[-+*/×·]\s*{_NUMBER})*"
_EQUATION = re.compile(rf"(?<![\w.])({_SIDE})\s*=\s*({_NUMBER})(?![\w.]*\d)")
_TERM = re.compile(rf"\s*([-+*/×·]?)\s*({_NUMBER[2:]})")
MAX_DIGITS = 30


@dataclass(frozen=True)
class Equation:
    """One `left = right` as written, and whether it holds."""

    left: str
    right: str
    holds: bool


def equations(text: str) -> list[Equation]:
    """Every equation with an operation on its left, in order of appearance."""
    found = []
    for left, right in _EQUATION.findall(text):
        if re.search(r"\d\s*[-+*/×·]", left):
            value = evaluate(left)
            found.append(Equation(left, right, value is not None and value == evaluate(right)))
    return found


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
