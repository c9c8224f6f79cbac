"""Whether two answers are one: numbers as numbers, choices as letters, mathematics by math-verify, the rest as text.

What can be decided without math-verify is, so that a step of reinforcement learning does not wait for it; see
`verifier` for its process and deadline. Finding the answer in a completion is `extraction`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from model_core.evaluation.latex import as_latex, plain
from model_core.evaluation.verifier import VERIFIER

MAX_ANSWER_CHARS = 2000
"""A longer text is no final answer; it is compared as text only."""
_MAX_DIGITS = 60

_NUMBER = re.compile(
    r"(?<![\w.,/\-])-?(?:(?:\d+[^\S\n]+)?\d+/\d+|(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![\w/]|[.,]\d)"
)
_LEADING = re.compile(r"^[A-Za-z]\w{0,9}\s*=\s*(?=\S)|^=\s*")
_SIGN_BEFORE_CURRENCY = re.compile(r"-\s*([$€£¥₹])\s*(?=[\d.])")
_BESIDE_A_NUMBER = frozenset(" .,;:!?'\"’‘“”%°$€£¥₹¢–—-")
_CHANGES_VALUE = frozenset({
    "and", "or", "times", "over", "minus", "plus", "negative", "not", "half", "halves", "third", "thirds", "quarter", "quarters",
    "dozen", "hundred", "thousand", "million", "billion", "trillion", "root", "pi", "sqrt", "sin", "cos", "tan", "cot", "sec",
    "csc", "log", "ln", "exp", "choose", "base", "mod", "factorial",
})  # fmt: skip
_CHOICE = re.compile(r"\(?([A-Ja-j])\)?|\(?([A-J])(?:\)|[.:])\s+[\w\"'“$\\].*", re.DOTALL)
_IN_BASE = re.compile(r"(-?\d[0-9A-F]*)_(?:\{(\d+)\}|(\d+))")
_FUNCTIONS = frozenset({"sqrt", "frac", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan"})


def same_answer(expected: str, given: str) -> bool:
    """Whether both mean the same; `1,055`, `$1055.00` and `1055` do, and the order does not matter.

    Of texts with more around their number (`Apollo 11`), one has to be the bare number or both have to say the same.

    Raises:
        Undecided: math-verify did not answer within its deadline, or cannot read the expected answer. That is neither
            right nor wrong; leave the answer out and count it.
    """
    if max(len(expected), len(given)) > MAX_ANSWER_CHARS:
        return expected.split() == given.split()
    left, right = plain(expected), plain(given)
    if not left or not right or _as_text(left) == _as_text(right):
        return bool(_as_text(left) and _as_text(right))
    for decide in (_as_numbers, _as_choices, _in_bases):
        decided = decide(left, right)
        if decided is not None:
            return decided
    if not (is_mathematics(left) and is_mathematics(right) and (_needs_reading(left) or _needs_reading(right))):
        return False
    return VERIFIER.same(as_latex(expected), as_latex(given))


def number_of(text: str) -> Fraction | None:
    """The one number that the text says, exactly; units, currency signs and a leading `x =` aside.

    None when it says none or several, or when what stands beside the number changes it (`2 pi`, `5 million`, `x^2`).
    """
    found = _number_in(plain(text)) if len(text) <= MAX_ANSWER_CHARS else None
    return found[0] if found else None


def is_mathematics(text: str) -> bool:
    """Whether no word of a language stands in it; `\\pmatrix` and `sqrt` are none."""
    words = re.findall(r"[^\W\d_]{4,}", re.sub(r"\\[A-Za-z]+(?:\{[a-z]*matrix\})?", " ", text))
    return all(word in _FUNCTIONS for word in words)


def _number_in(text: str) -> tuple[Fraction, str] | None:
    """The number and the words beside it."""
    text = _SIGN_BEFORE_CURRENCY.sub(r"\1-", text)
    leading = _LEADING.match(text)
    body = text[leading.end() :] if leading else text
    found = next(_NUMBER.finditer(body), None)
    if found is None or len(found[0]) > _MAX_DIGITS:
        return None
    beside = f"{body[: found.start()]} {body[found.end() :]}"
    if not all(sign.isalpha() or sign.isspace() or sign in _BESIDE_A_NUMBER for sign in beside):
        return None
    words = re.findall(r"[^\W\d_]+", beside.casefold())
    if any(word in _CHANGES_VALUE or (len(word) == 1 and (word != "a" or len(words) == 1)) for word in words):
        return None
    number = _value(found[0])
    name = leading[0].rstrip("= \t\n") if leading else ""
    return None if number is None else (number, " ".join([name, *words]).strip())


def _value(number: str) -> Fraction | None:
    sign, number = (-1, number[1:]) if number.startswith("-") else (1, number)
    *whole, part = number.replace(",", "").split()
    above, _slash, below = part.partition("/")
    if below and int(below) == 0:
        return None
    return sign * (sum(map(int, whole)) + (Fraction(int(above), int(below)) if below else Fraction(part)))


def _as_numbers(left: str, right: str) -> bool | None:
    first, second = _number_in(left), _number_in(right)
    if first is None or second is None:
        return None
    (one, words), (other, other_words) = first, second
    return one == other and (not words or not other_words or words == other_words)


def _as_choices(left: str, right: str) -> bool | None:
    """Of letters such as `B`, `(B)` and `B. Jupiter`; two that are more than a letter are compared as text."""
    first, second = _CHOICE.fullmatch(left), _CHOICE.fullmatch(right)
    if first is None or second is None or not (first[1] or second[1]):
        return None
    return (first[1] or first[2]).upper() == (second[1] or second[2]).upper()


def _in_bases(left: str, right: str) -> bool | None:
    """`52_8` is `52_{8}` and not `52_9`; without a base the digits decide."""
    first, second = _IN_BASE.fullmatch(left), _IN_BASE.fullmatch(right)
    if first is None and second is None:
        return None
    bases = {int(found[2] or found[3]) for found in (first, second) if found}
    return len(bases) == 1 and (first[1] if first else left) == (second[1] if second else right)


def _as_text(text: str) -> str:
    """Without case and white space for words; formulas keep their case and lose the space around signs."""
    text = " ".join(text.strip(" .\t\n").split())
    if _is_formula(text):
        return re.sub(r"\s*([-+*/=^_,(){}\[\]<>|])\s*", r"\1", text)
    return text.casefold()


def _is_formula(text: str) -> bool:
    return bool(re.search(r"[\\^_=+*/<>(\[{|]", text))


def _needs_reading(text: str) -> bool:
    return _is_formula(text) or bool(re.search(r"[-\d√π∞±×÷·≤≥≠²³∪∩]", text))
