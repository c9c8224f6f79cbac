r"""Arithmetic as people and models write it: `2*(3+4)`, `1,000 × 3`, `20% of 50`, `5 apples + 3 apples`, `\frac{1}{2}`, `2x + 1`.

`Reader` cuts a text into tokens once and reads one side of an equation at a time, exactly, in fractions. Whatever the text
is, it takes time that grows with its length and not with its square. Equations are put together in `_equations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

MAX_DIGITS = 30
"""A longer number is absurd and is not computed."""
MAX_BITS = 2048
MAX_DEPTH = 30
MAX_EXPONENT = 100
MAX_UNIT_WORDS = 3


class Odd(Enum):
    """What a side can be instead of a number."""

    UNKNOWN = "holds a name that stands for no number yet"
    IMPOSSIBLE = "a division by zero, or a number of absurd size"


Value = int | Fraction | Odd
Read = tuple[Value, int, str]
"""A value, the token after it, and the signs of the operations in it."""


@dataclass(frozen=True)
class Side:
    """One side of an equation. `text` is as written, without units around it."""

    text: str
    value: Value
    operations: str = ""
    """The signs of its operations, in order."""
    name: str = ""
    """The side is this name and nothing else."""
    is_percent: bool = False
    """The side is one number with a percent sign."""
    places: int | None = None
    """Decimals of the number, when the side is one number without anything else."""
    is_rounded: bool = False
    """It is written with dots at its end, `0.333...`."""
    unit: str = ""
    """The last word of what was counted."""


_TOKEN = re.compile(
    r"""
    (?P<space>(?:[^\S\n]|[$€£¥&]|\\[$,;!:()\[\]\ ]|\\(?:left|right|boxed|displaystyle|q?quad|big|Big)(?![a-zA-Z]))+)
  | (?P<newline>\n|\\\\)
  | (?P<broken>\d+(?:\.\d+){2,}|==+|[<>!:]=|=>|[-–−]{1,3}>)
  | (?P<mixed>\d{1,9}\ \d{1,9}/\d{1,9}(?![\d.]))
  | (?P<number>(?:\d{1,3}(?:(?:,(?:\\!)?|\{,\}|\\,)\d{3})++(?![\d])(?:\.\d+)?|\d++(?:\.\d+)?+|(?<![\w.])\.\d++)(?:\.{3}|…)?)
  | (?P<half>\\[dt]?frac\s*\d\s*\d)
  | (?P<fraction>\\[dt]?frac(?![a-zA-Z]))
  | (?P<root>\\sqrt(?![a-zA-Z\[])|√)
  | (?P<power>(?<=[\w)}\]])\*\*|\^)
  | (?P<raised>[²³])
  | (?P<times>[*×·⋅∙∗]|\\(?:times|cdot)(?![a-zA-Z])|(?<=[\d)\s])[xX](?=\s*[\d(]))
  | (?P<over>[/÷∕]|\\div(?![a-zA-Z]))
  | (?P<plus>\+)
  | (?P<minus>[-−–])
  | (?P<about>≈|≃|\\approx(?![a-zA-Z]))
  | (?P<equal>=)
  | (?P<percent>\\?%)
  | (?P<open>[({\[])
  | (?P<close>[)}\]])
  | (?P<unit>\\(?:text|mathrm|mbox)\s*\{[^{}0-9=]*\})
  | (?P<apart>\\(?:[A-Za-z]*arrow|implies|iff|to|therefore|because|leq?|geq?|neq?)(?![a-zA-Z])
      |\\(?:[lg]t|in|equiv|begin|end|item|l?dots|cdots)(?![a-zA-Z]))
  | (?P<command>\\[a-zA-Z]+)
  | (?P<word>[^\W\d_]\w*)
  | (?P<bar>[|!])
  | (?P<under>_)
  | (?P<other>[^|\s\d\w$€£¥&\\²³*×·⋅∙∗/÷∕+\-−–≈≃=%(){}\[\].<>!:√^…]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SIGNS = {"times": "*", "over": "/", "plus": "+", "minus": "-"}
_OPERATORS = frozenset({"power", *_SIGNS})
_OPERANDS = frozenset({"close", "raised", "percent", "number", "command", "bar"})
_UNREAD = frozenset({"apart", "open", "command", "bar", "fraction", "root"})
_NO_UNITS = frozenset((
    "and", "or", "so", "then", "thus", "hence", "is", "are", "was", "gives", "makes", "we", "i", "he", "she", "they", "get",
    "but", "of", "which", "that", "therefore", "because", "equals", "plus", "minus", "times", "if", "to", "from", "with", "for",
))  # fmt: skip
"""Words after a number that are part of a sentence and no unit."""
_UNIT_LETTERS = frozenset("mgshlLtWVNJKCF")


class Reader:
    """Reads sides out of `text`; `names` are the numbers that names stand for, and may be added to on the way."""

    def __init__(self, text: str, names: dict[str, Value] | None = None) -> None:
        self.text, self.names = text, {} if names is None else names
        self.kinds: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup or ""
            if kind != "space":
                self.kinds.append(kind)
                self.starts.append(match.start())
                self.ends.append(match.end())
        self.kinds.append("end")
        self._groups: dict[int, Read | None] = {}
        self._depth = 0
        self._units: set[int] = set()

    def word(self, at: int) -> str:
        """Token `at` as written."""
        return self.text[self.starts[at] : self.ends[at]]

    def is_fragment(self, at: int, after: int) -> bool:
        """Whether the tokens from `at` to `after` are a piece of what could not be read, as in `|x|^2` and `1 + \\cdots`."""
        is_rest = at > 1 and self.kinds[at - 1] in _OPERATORS and self.kinds[at - 2] in _OPERANDS
        return is_rest or (self.kinds[after] in _OPERATORS and self.kinds[after + 1] in _UNREAD)

    def side(self, at: int) -> tuple[Side, int] | None:
        """The longest side that begins at token `at`, and the token after it; None when none begins there."""
        read = self._sum(at)
        if read is None:
            return None
        value, after, signs = read
        end = after
        while end - 1 in self._units:
            end -= 1
        first = at + (self.kinds[at] == "minus")
        only, is_number = self.kinds[first:end], self.kinds[first] == "number"
        written = self.word(first)
        return Side(
            self.text[self.starts[at] : self.ends[end - 1]], value, signs,
            name=written if only == ["word"] and first == at else "",
            is_percent=only == ["number", "percent"],
            places=len(written.rstrip(".…").partition(".")[2]) if only == ["number"] else None,
            is_rounded=is_number and written.endswith(("...", "…")),
            unit=self.word(after - 1) if after > end else "",
        ), after  # fmt: skip

    def _sum(self, at: int) -> Read | None:
        read = self._product(at)
        if read is None:
            return None
        total, at, signs = read
        while (kind := self.kinds[at]) in {"plus", "minus"}:
            following = self._product(at + 1)
            if following is None:
                break
            sign = _SIGNS[kind]
            total, at, signs = _combined(sign, total, following[0]), following[1], signs + sign + following[2]
        return total, at, signs

    def _product(self, at: int) -> Read | None:
        read = self._factor(at)
        if read is None:
            return None
        product, at, signs = read
        while True:
            sign, first = self._next_sign(at, signs)
            following = self._factor(first) if sign else None
            if following is None:
                return product, at, signs
            product, at, signs = _combined(sign, product, following[0]), following[1], signs + sign + following[2]

    def _next_sign(self, at: int, signs: str) -> tuple[str, int]:
        """The sign of the next factor and where it begins; nothing between `2` and `x`, or `2` and `(`, multiplies."""
        kind = self.kinds[at]
        if kind in {"times", "over"}:
            return _SIGNS[kind], at + 1
        if kind == "word" and self.word(at) == "of" and (self.kinds[at - 1] == "percent" or signs.endswith("/")):
            return "*", at + 1
        touches = kind in {"open", "word"} and self.starts[at] == self.ends[at - 1]
        return ("*", at) if touches and (kind == "open" or self._is_name(self.word(at))) else ("", at)

    def _is_name(self, word: str) -> bool:
        """Whether a word that touches a number is a name, as in `2x`, and no unit, as in `5km`."""
        return len(word) == 1 or not word.isalpha() or word in self.names

    def _factor(self, at: int) -> Read | None:
        is_minus = self.kinds[at] == "minus" and self.kinds[at + 1] != "end" and self.starts[at + 1] == self.ends[at]
        read = self._power(at + 1 if is_minus else at)
        return (_combined("-", 0, read[0]), *read[1:]) if read is not None and is_minus else read

    def _power(self, at: int) -> Read | None:
        read = self._base(at)
        if read is None:
            return None
        value, at, signs = read
        kind = self.kinds[at]
        if kind == "raised":
            value, at, signs = _power_of(value, 2 if self.word(at) == "²" else 3), at + 1, signs + "^"
        elif kind == "power" and (exponent := self._nested(self._factor, at + 1)) is not None:
            value, at, signs = _power_of(value, exponent[0]), exponent[1], signs + "^" + exponent[2]
        if self.kinds[at] == "percent":
            value, at = _combined("/", value, 100), at + 1
        return value, self._after_units(at), signs

    def _base(self, at: int) -> Read | None:
        kind = self.kinds[at]
        if kind == "number":
            return self._number(at)
        if kind == "open":
            return self._group(at)
        if kind in {"mixed", "half"}:
            *whole, above, below = map(int, re.findall(r"\d+" if kind == "mixed" else r"\d", self.word(at)))
            return _combined("+", sum(whole), _combined("/", above, below)), at + 1, "/"
        if kind == "fraction":
            return self._fraction(at)
        if kind == "root":
            inner = self._nested(self._base, at + 1)
            return None if inner is None else (_root_of(inner[0]), inner[1], inner[2] + "√")
        if kind == "command":
            return self._command(at)
        return self._name(at) if kind == "word" else None

    def _number(self, at: int) -> Read:
        text = self.word(at)
        value = int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else number(text)
        if self.kinds[at + 1] == "fraction" and self.starts[at + 1] == self.ends[at]:
            part = self._fraction(at + 1)
            if part is not None:
                return _combined("+", value, part[0]), part[1], part[2]
        return value, at + 1, ""

    def _fraction(self, at: int) -> Read | None:
        above = self._nested(self._base, at + 1)
        below = None if above is None else self._nested(self._base, above[1])
        if above is None or below is None:
            return None
        return _combined("/", above[0], below[0]), below[1], above[2] + below[2] + "/"

    def _command(self, at: int) -> Read:
        """A function that is not computed, such as `\\log_2{8}`, with what stands in its brackets."""
        at += 1
        if self.kinds[at] == "under":
            at = (self._nested(self._base, at + 1) or (None, at + 1))[1]
        while self.kinds[at] == "open" and (inner := self._group(at)) is not None:
            at = inner[1]
        return Odd.UNKNOWN, at, ""

    def _group(self, at: int) -> Read | None:
        """What stands in brackets. Each pair is read once, so that nested ones that never close cost no more than others."""
        if at not in self._groups:
            inner = self._nested(self._sum, at + 1)
            is_closed = inner is not None and self.kinds[inner[1]] == "close"
            self._groups[at] = (inner[0], inner[1] + 1, inner[2]) if inner is not None and is_closed else None
        return self._groups[at]

    def _nested(self, read: Callable[[int], Read | None], at: int) -> Read | None:
        """Reads a part of a part; what is nested deeper than anybody writes is nothing that can be read."""
        self._depth += 1
        inner = read(at) if self._depth <= MAX_DEPTH else None
        self._depth -= 1
        return inner

    def _name(self, at: int) -> Read | None:
        """A name that is known, or that is used like one; a word of a sentence is none."""
        word, following = self.word(at), self.kinds[at + 1]
        if word in self.names:
            return self.names[word], at + 1, ""
        is_short = len(word) == 1 or not word.isalpha()
        before = self.kinds[at - 1] if at else ""
        is_used = following in {"plus", "times", "over", "power", "equal", "about"} or (is_short and (
            following in {"minus", "open"} or before in {"plus", "minus", "times", "over", "number", "equal", "open", "close"}))
        return (Odd.UNKNOWN, at + 1, "") if is_used else None

    def _after_units(self, at: int) -> int:
        """The token after the words that say what was counted: `5 red apples`, `4 km/h`, `7\\text{ cm}`."""
        for count in range(MAX_UNIT_WORDS):
            first = at + 1 if count and self.kinds[at] == "over" else at
            if self.kinds[first] not in {"word", "unit"} or not self._is_unit(first):
                break
            self._units.update(range(at, first + 1))
            at = first + 1
        return at

    def _is_unit(self, at: int) -> bool:
        word = self.word(at)
        if self.kinds[at] == "unit":
            return True
        touches = self.starts[at] == self.ends[at - 1]
        is_letters = word.isalpha() and word.casefold() not in _NO_UNITS
        return is_letters and not (touches and self._is_name(word)) and (len(word) > 1 or word in _UNIT_LETTERS)


def number(text: str) -> Value:
    """The value of a written number; separators of thousands and dots at its end may be in it."""
    plain = re.sub(r",(?:\\!)?|\{,\}|\\,|\.{3}$|…$", "", text)
    is_absurd = any(len(digits) > MAX_DIGITS for digits in plain.split("."))
    return Odd.IMPOSSIBLE if is_absurd else Fraction(plain)


def _combined(sign: str, left: Value, right: Value) -> Value:
    if isinstance(left, Odd) or isinstance(right, Odd):
        return Odd.UNKNOWN if Odd.UNKNOWN in (left, right) else Odd.IMPOSSIBLE
    if sign == "/":
        return Odd.IMPOSSIBLE if right == 0 else _bounded(Fraction(left) / right)
    return _bounded(left + right if sign == "+" else left - right if sign == "-" else left * right)


def _bounded(value: int | Fraction) -> Value:
    is_small = max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS
    return value if is_small else Odd.IMPOSSIBLE


def _power_of(base: Value, exponent: Value) -> Value:
    if isinstance(base, Odd) or isinstance(exponent, Odd):
        return Odd.UNKNOWN if Odd.UNKNOWN in (base, exponent) else Odd.IMPOSSIBLE
    whole = int(exponent)
    if whole != exponent or abs(whole) > MAX_EXPONENT or (base == 0 and whole < 0):
        return Odd.IMPOSSIBLE if whole == exponent else Odd.UNKNOWN
    return _bounded(Fraction(base) ** whole)


def _root_of(value: Value) -> Value:
    """The root where it is a fraction; a root that is none stays unknown rather than rounded."""
    if isinstance(value, Odd) or value < 0:
        return Odd.UNKNOWN
    from math import isqrt

    root = Fraction(isqrt(value.numerator), isqrt(value.denominator))
    return root if root * root == value else Odd.UNKNOWN
