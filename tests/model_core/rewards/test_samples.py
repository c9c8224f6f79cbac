"""Where a completion's reasoning ends and its answer begins, whatever a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.rewards._types import Sample, Score

TEXT = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=40)


def sample(completion: str) -> Sample:
    return Sample("1+1=", completion, "2", "", 5, "stop")


@settings(deadline=None)
@given(TEXT, TEXT)
def test_a_closed_thinking_part_is_the_reasoning_and_the_rest_the_answer(reasoning: str, answer: str) -> None:
    read = sample(f"<think>{reasoning}</think>{answer}")
    assert (read.reasoning, read.answer) == (reasoning, answer.strip())


@settings(deadline=None)
@given(TEXT)
def test_without_tags_everything_is_the_answer_and_an_open_part_is_all_reasoning(text: str) -> None:
    assert (sample(text).reasoning, sample(text).answer) == ("", text.strip())
    thinking = sample(f"<think>{text}")
    assert (thinking.reasoning, thinking.answer) == (text, "")


@pytest.mark.parametrize(("completion", "reasoning", "answer"), [
    ("", "", ""), ("<think></think>", "", ""), ("</think>", "", ""), ("<think>a</think>b</think>c", "a", "b</think>c"),
    ("<think>a<think>b</think>c", "a<think>b", "c"), ("a<think>b</think> c ", "", "a<think>b</think> c"),
])
def test_the_first_closing_tag_decides(completion: str, reasoning: str, answer: str) -> None:
    assert (sample(completion).reasoning, sample(completion).answer) == (reasoning, answer)


def test_unscored_has_a_reason_and_no_value() -> None:
    score = Score.unscored("nothing is known")
    assert score.value is None and score.detail == "nothing is known" and score != Score(0.0, "nothing is known")
