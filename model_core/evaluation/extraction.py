r"""Finds the final answer in a completion, by finders tried in an order that each benchmark pins.

What was thought is no answer: only the text after the last `</think>` is looked at, and a completion that opened
`<think>` and never closed it has none. Whether the answer is right is `answers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from model_core.evaluation.answers import is_mathematics, number_of

Finder = Callable[[str], str | None]
MAX_FOUND_CHARS = 2000
"""A final answer is shorter; a longer find is none."""
_MAX_BOXES = 16

_STATED = re.compile(
    r"\b(?:(?:(?:final|correct|best|right)\s+)?answer|(?:correct|best|right)\s+(?:choice|option))"
    r"(?:\s+(?:is|would\s+be)\b\s*:?|\s*:)[ \t]*",
    re.IGNORECASE,
)
_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}.])-[$€£¥₹]?|(?<![\w.])[$€£¥₹]?-?)(?:{_AMOUNT})")
_LETTER = re.compile(r"(?<![A-Za-z\\'’])(?:\(([A-J])\)|([B-HJ])(?![A-Za-z'’])|([AI])(?=[.):,]|\s*$|\s*\n))")
_FORMULA = re.compile(
    r"\$\$((?:\\.|[^$\\]){1,2000})\$\$|\$((?:\\.|[^$\\\n]){1,2000})\$|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL
)


def final_answer(completion: str, finders: Sequence[Finder] | None = None) -> str | None:
    """The answer that the first successful finder gives; None when there is none.

    `finders` are those of mathematics (`ANY`) unless told otherwise.
    """
    return next(_finds(after_thinking(completion), ANY if finders is None else finders), None)


def final_number(completion: str) -> str | None:
    """The answer to a question for a number: the first mark that holds one decides, else the whole text when it is nothing
    but a number, else the last number of all.

    A mark without a number is given only when there is no number at all.
    """
    text = after_thinking(completion)
    finds = list(_finds(text, (*BY_MARK, _bare_number, last_number)))
    return next((number for found in finds if (number := _number_said(found))), finds[0] if finds else None)


def after_thinking(completion: str) -> str:
    """The text after the last `</think>`; empty while still thinking, all of it when nothing was thought."""
    _thought, tag, said = completion.rpartition("</think>")
    if not tag and completion.lstrip().startswith("<think>"):
        return ""
    return said


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` or `\fbox{…}` that is closed, with braces counted; also `\boxed 5`."""
    boxes = list(re.finditer(r"\\f?box(?:ed)?(?:\s*\{|\s+([^\s{}$]+))", text))[-_MAX_BOXES:]
    for box in reversed(boxes):
        content = box[1] or _until_closed(text, box.end())
        if content is not None:
            return content
    return None


def answer_tag(text: str) -> str | None:
    """The content of the last `<answer>…</answer>`, as R1-Zero's template asks for it; its own mark inside counts first."""
    _head, opened, tail = text.rpartition("<answer>")
    content, closed, _rest = tail.partition("</answer>")
    if not opened or not closed:
        return None
    inner = boxed(content) or after_hashes(content) or stated(content)
    return inner if inner else content


def after_hashes(text: str) -> str | None:
    """The rest of the line after the last `####`, as GSM8K's own solutions end."""
    _head, mark, tail = text.rpartition("####")
    return _shortened(tail.strip().partition("\n")[0]) if mark else None


def stated(text: str) -> str | None:
    """What follows the last “the answer is”, “Answer:” and the like, up to the end of the sentence or formula."""
    places = list(_STATED.finditer(text.replace("*", " ")))
    for place in reversed(places[-_MAX_BOXES:]):
        rest = text[place.end() : place.end() + 2 * MAX_FOUND_CHARS].strip(" \t*").lstrip("\n").partition("\n")[0]
        if rest.strip(" .:*"):
            return _shortened(rest)
    return None


def last_number(text: str) -> str | None:
    """The last number, with its sign; thousands, decimals and fractions whole."""
    found = _last(_NUMBER, text)
    return found[0].strip() if found else None


def last_letter(text: str) -> str | None:
    """The last capital letter that stands alone as a choice does; the article `A` and the pronoun `I` are none."""
    found = _last(_LETTER, text)
    return next(group for group in found.groups() if group) if found else None


def last_formula(text: str) -> str | None:
    r"""The content of the last `$…$`, `\(…\)` or `\[…\]`."""
    found = _last(_FORMULA, text[-20 * MAX_FOUND_CHARS :])
    return next(group for group in found.groups() if group) if found else None


def bare(text: str) -> str | None:
    """The whole text when it is nothing but an answer: one formula, or at most three words."""
    text = text.strip()
    if "\n" in text or len(text) > 200 or not (is_mathematics(text) or len(text.split()) <= 3):
        return None
    return text


BY_MARK: tuple[Finder, ...] = (boxed, answer_tag, after_hashes, stated)
"""What every benchmark looks for first, in this order."""
ANY: tuple[Finder, ...] = (*BY_MARK, bare, last_formula, last_number)
"""For answers of any kind: mathematics, numbers, words."""


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for found in pattern.finditer(text):
        last = found
    return last


def _bare_number(text: str) -> str | None:
    whole = bare(text)
    return whole if whole is not None and number_of(whole) is not None else None


def _finds(text: str, finders: Sequence[Finder]) -> Iterator[str]:
    for find in finders:
        found = find(text)
        if found is not None and found.strip() and len(found) <= MAX_FOUND_CHARS:
            yield found.strip()


def _number_said(found: str) -> str | None:
    """`x = 9 * 2 = 18 eggs` says 18, `5 of 12` says 5."""
    if number_of(found) is not None:
        return found
    number = _NUMBER.search(found.rpartition("=")[2])
    return number[0] if number else None


def _until_closed(text: str, start: int) -> str | None:
    depth, place = 1, start
    while place < min(len(text), start + 2 * MAX_FOUND_CHARS):
        sign = text[place]
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[start:place]
        place += 2 if sign == "\\" else 1
    return None


def _shortened(rest: str) -> str:
    """One formula when it begins with one, else up to the end of the sentence, without emphasis."""
    rest = rest.replace("**", "").strip()
    formula = _FORMULA.match(rest)
    if formula and not re.match(r"\$?\d", rest[formula.end() :].lstrip()):
        return next(group for group in formula.groups() if group)
    return re.split(r"(?<!\\)(?:[.!?](?=\s|$)|;\s)", rest, maxsplit=1)[0].strip(" *") or rest
