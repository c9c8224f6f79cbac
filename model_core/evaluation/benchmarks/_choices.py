"""Problems with labelled choices: reading them, and finding which one a completion chose, by its letter or its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from model_core.errors import DataError
from model_core.evaluation.extraction import BY_MARK, after_thinking, final_answer, last_letter
from model_core.evaluation.latex import plain

LABELS = "ABCDEFGHIJ"
MAX_SHORT_CHARS = 200
"""A longer text without a mark is read for its last letter only."""
_ALONE = re.compile(r"\W*([A-Ja-j])\W*")
_LETTER = re.compile(r"\W*(?:(?:option|choice|answer)\s+)?\(?([A-J])(?:$|[^\w'’])", re.IGNORECASE)
_ARTICLE = re.compile(r"\W*a\s+(?!(?:is|because|since)\b)[a-z]", re.IGNORECASE)


def choices_of(value: Any, number: int) -> tuple[tuple[str, str], ...]:
    """(label, text) of `["one", "two"]` or `{"label": ["A", "B"], "text": ["one", "two"]}`; digits become letters.

    Raises DataError for anything else.
    """
    texts, labels = _texts(value.get("text") if isinstance(value, Mapping) else value), list(LABELS)
    labels = _texts(value.get("label")) if isinstance(value, Mapping) else labels[: len(texts)]
    if not len(texts) == len(labels) or not 2 <= len(texts) <= len(LABELS) or len(set(labels)) < len(labels):
        raise DataError(
            f"Row {number}: choices must be 2 to {len(LABELS)} texts, or equally long lists “text” and “label” of different "
            f"labels; they are {value!r:.80}.", field="data",
        )  # fmt: skip
    return tuple((letter_of(label), text) for label, text in zip(labels, texts, strict=True))


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else []


def letter_of(label: str) -> str:
    """`1` → `A`: some rows of ARC number their choices."""
    label = label.strip()
    return LABELS[int(label) - 1] if label in {"1", "2", "3", "4", "5"} else label.upper()


def choice_in(completion: str, choices: tuple[tuple[str, str], ...]) -> str | None:
    """The label that a completion chooses: by its mark, else by its last letter, else by the words of a short text."""
    marked = final_answer(completion, BY_MARK)
    if marked is not None and (label := chosen(marked, choices)):
        return label
    text = after_thinking(completion).strip()
    short = len(text) <= MAX_SHORT_CHARS
    letter = _exactly(plain(text), choices) if short else None
    letter = letter or last_letter(text)
    return letter if letter in dict(choices) else chosen(text, choices) if short else None


def chosen(answer: str, choices: tuple[tuple[str, str], ...]) -> str | None:
    """The label that an answer names: `B`, `(b)`, `B. Jupiter`, `option B`, or the words of exactly one choice."""
    answer = plain(answer)
    exact = _exactly(answer, choices)
    if exact:
        return exact
    letter = _LETTER.match(answer)
    if letter and letter[1].upper() in dict(choices) and not _ARTICLE.match(answer):
        return letter[1].upper()
    said, texts = _words(answer), {label: _words(text) for label, text in choices}
    named = [text for text in texts.values() if text and re.search(rf"\b{re.escape(text)}\b", said)]
    longest = max(named, key=len, default="")
    fitting = [label for label, text in texts.items() if text == longest]
    return fitting[0] if len(fitting) == 1 and all(text in longest for text in named) else None


def _exactly(answer: str, choices: tuple[tuple[str, str], ...]) -> str | None:
    """By the letter alone, else by all the words of one choice and no other."""
    alone = _ALONE.fullmatch(answer)
    if alone and alone[1].upper() in dict(choices):
        return alone[1].upper()
    exact = [label for label, text in choices if _words(text) == _words(answer)]
    return exact[0] if len(exact) == 1 else None


def _words(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split())
