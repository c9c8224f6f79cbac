"""Compares answers without a verifier of their own: numbers as numbers, everything else as text."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def same_answer(expected: str, given: str) -> bool:
    """Whether both mean the same; `1,055`, `$1055.00` and `1055` do."""
    left, right = number_of(expected), number_of(given)
    if left is not None and right is not None:
        return left == right
    return _plain(expected) == _plain(given) != ""


def number_of(text: str) -> Fraction | None:
    """The number that the text is, units and currency signs aside; None when it is none or holds several."""
    found = _NUMBER.findall(text[:400])
    if len(found) != 1 or len(found[0]) > 60:
        return None
    number = found[0].replace(",", "")
    if number.endswith("/0") or re.search(r"/0+$", number):
        return None
    return Fraction(number) if "/" not in number or "." not in number else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().strip(" .\t\n").split())
