"""One rule of where thinking ends: rewards, which have the whole text, and engines, which have it in pieces, agree."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.rewards._types import Sample
from model_core.rewards.format import Format
from model_core.serving.reasoning import ReasoningSplitter
from model_core.thinking import split, with_opening

PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "</thi", "nk>", " ", "\n", "7+5=12", "12"]), max_size=8)


def shown(pieces: list[str], *, opened: bool) -> tuple[str, str]:
    """What an engine's readers see on both sides."""
    splitter = ReasoningSplitter(thinking=opened)
    told = [splitter.feed(piece) for piece in pieces] + [splitter.feed("", last=True)]
    return "".join(thought for thought, _said in told), "".join(said for _thought, said in told)


def sample(text: str) -> Sample:
    return Sample(prompt="7+5=", completion=text, expected="12", task="sums", num_tokens=9, finish_reason="stop")


@pytest.mark.parametrize(("text", "thought", "answer"), [
    ("<think>a</think>b", "a", "b"), (" \n<think>a</think>b", "a", "b"), ("a</think>b", "", "a</think>b"), ("b", "", "b"),
    ("<think>a", "a", ""), ("</think>b", "", "b"), ("<think>a</think>b</think>c", "a", "b</think>c"), ("", "", ""),
])  # fmt: skip
def test_the_rule(text: str, thought: str, answer: str) -> None:
    assert split(text) == (thought, answer)
    assert (sample(text).reasoning, sample(text).answer) == (thought, answer.strip())


def test_a_template_that_has_opened_needs_no_mark() -> None:
    assert split("a</think>b", opened=True) == ("a", "b") == shown(["a</th", "ink>b"], opened=True)


@given(PIECES, st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_is_rewarded_is_what_is_shown(pieces: list[str], opened: bool) -> None:
    assert shown(pieces, opened=opened) == split("".join(pieces), opened=opened)


def test_what_is_shown_with_a_stray_mark_is_not_rewarded_as_the_form() -> None:
    assert Format()(sample("<think>7+5=12</think>12")).value == 1 and Format()(sample("7+5=12</think>12")).value == 0
    assert Format()(sample(with_opening("7+5=12</think>12"))).value == 1
