"""Thinking and answer come apart the same way however the text is cut into pieces."""

from __future__ import annotations

import random

import pytest

from model_core.serving.reasoning import ReasoningSplitter

TEXTS = [
    ("<think>a<b</think>c", "a<b", "c"),
    ("plain < answer", "", "plain < answer"),
    ("<think>never closed", "never closed", ""),
    ("<think></think>42", "", "42"),
    ("x <think>y", "", "x <think>y"),
    ("<think>a</think>b</think>", "a", "b</think>"),
    ("a<b</think>c", "a<b", "c"),
    ("</think>42", "", "42"),
    ("a</think>b</think>", "a", "b</think>"),
    (" \n<think>a</think>b", "a", "b"),
    ("plain </thin", "", "plain </thin"),
    ("", "", ""),
    ("<thi", "", "<thi"),
]


@pytest.mark.parametrize(("text", "reasoning", "content"), TEXTS)
def test_any_cutting_gives_the_same(text: str, reasoning: str, content: str) -> None:
    draw = random.Random(0)
    for size in (1, 2, 3, 7, 100, *(draw.randint(1, 5) for _ in range(5))):
        splitter = ReasoningSplitter()
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        parts = [splitter.feed(piece) for piece in pieces] + [splitter.feed("", last=True)]
        assert ("".join(p[0] for p in parts), "".join(p[1] for p in parts)) == (reasoning, content)


def test_a_template_that_opened_the_thinking() -> None:
    assert ReasoningSplitter(thinking=True).feed("a</think>b", last=True) == ("a", "b")
