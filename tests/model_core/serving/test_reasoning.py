"""Thinking and answer come apart the same way however the text is cut into pieces."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.serving.reasoning import CLOSE, OPEN, ReasoningSplitter

TEXTS = [
    ("<think>a<b</think>c", "a<b", "c"),
    ("plain < answer", "", "plain < answer"),
    ("<think>never closed", "never closed", ""),
    ("<think></think>42", "", "42"),
    ("x <think>y", "", "x <think>y"),
    ("<think>a</think>b</think>", "a", "b</think>"),
    ("a<b</think>c", "", "a<b</think>c"),
    ("</think>42", "", "42"),
    ("</think>b</think>", "", "b</think>"),
    ("x <think>y</think>z", "", "x <think>y</think>z"),
    (" \n<think>a</think>b", "a", "b"),
    ("plain </thin", "", "plain </thin"),
    ("", "", ""),
    ("<thi", "", "<thi"),
    (" \n</th", "", " \n</th"),
    (" \n1", "", " \n1"),
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


PARTS = st.lists(st.sampled_from([OPEN, CLOSE, "<think", "think>", "</", "<", ">", " ", "\n", "a", "ü😀", ""]), max_size=8)
CUTS = st.lists(st.integers(0, 80), max_size=12)


def cut_at_once(text: str, *, thinking: bool) -> tuple[str, str]:
    """The rule of the module's docstring, with the whole text before one's eyes."""
    begun = text.lstrip()
    if thinking or begun.startswith(OPEN):
        body = text if thinking else begun.removeprefix(OPEN)
        return body.partition(CLOSE)[0], body.partition(CLOSE)[2]
    return "", begun.removeprefix(CLOSE) if begun.startswith(CLOSE) else text


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[start:end] for start, end in pairwise(places)]


@given(PARTS, CUTS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_pieces_are_cut_as_the_whole_text(parts: list[str], cuts: list[int], thinking: bool) -> None:
    text = "".join(parts)
    splitter = ReasoningSplitter(thinking=thinking)
    given_back = [splitter.feed(piece) for piece in pieces_of(text, cuts)] + [splitter.feed("", last=True)]
    joined = "".join(thought for thought, _ in given_back), "".join(said for _, said in given_back)
    assert joined == cut_at_once(text, thinking=thinking)


@given(PARTS, CUTS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_more_is_held_back_than_the_beginning_of_a_mark(parts: list[str], cuts: list[int], thinking: bool) -> None:
    """What can be told has been told after each piece: all but what may still become the mark that is waited for."""
    splitter, seen, shown = ReasoningSplitter(thinking=thinking), "", ("", "")
    for piece in pieces_of("".join(parts), cuts):
        seen, told = seen + piece, splitter.feed(piece)
        shown = shown[0] + told[0], shown[1] + told[1]
        begun = seen.lstrip()
        if not thinking and any(mark.startswith(begun) and mark != begun for mark in (OPEN, CLOSE)):
            assert shown == ("", "")
            continue
        thought, said = cut_at_once(seen, thinking=thinking)
        held = next(thought[place:] for place in range(len(thought) + 1) if CLOSE.startswith(thought[place:]))
        held = held if splitter.thinking else ""
        assert shown == (thought.removesuffix(held), said)


@given(st.text(min_size=1).filter(lambda text: text.lstrip() and not text.lstrip().startswith("<")), CUTS)
@settings(max_examples=100, deadline=None)
def test_an_answer_without_thinking_is_told_as_it_comes(text: str, cuts: list[int]) -> None:
    splitter, seen, shown = ReasoningSplitter(), "", ""
    for piece in pieces_of(text, cuts):
        seen, shown = seen + piece, shown + splitter.feed(piece)[1]
        assert shown == (seen if seen.strip() else "")
