"""The answer is found again in whatever it was written into; what was thought is none; no text takes long."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.evaluation.answers import number_of
from model_core.evaluation.extraction import (
    ANY,
    after_hashes,
    after_thinking,
    answer_tag,
    bare,
    boxed,
    final_answer,
    final_number,
    last_formula,
    last_letter,
    last_number,
    stated,
)

ANSWERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str), st.integers(1000, 10**7).map("{:,}".format),
    st.sampled_from([r"\frac{14}{3}", r"\left( 3, \frac{\pi}{2} \right)", "p - q", r"\text{Evelyn}", r"\{1\pm\sqrt{5},-2\}", "(3,4]", "x=5"]),
)  # fmt: skip
BEFORE = st.sampled_from(["", "So it is. ", "<think>\\boxed{3} The answer is 4. #### 5</think>", "</think>", "First 2+2=4,\nthen\n\n"])
FORMS = [r"\boxed{%s}", r"It is $\boxed{%s}$.", r"\boxed{1} no: \boxed{%s}", "<answer>%s</answer>", "#### %s", "The answer is %s.",
         "**Final Answer:** %s", "the correct answer is: $%s$", "Answer: %s\n\n", "<answer>so \\boxed{%s}</answer>"]  # fmt: skip


@given(BEFORE, ANSWERS, st.sampled_from(FORMS))
def test_what_was_marked_is_found(before: str, answer: str, form: str) -> None:
    assert final_answer(before + form % answer) == answer


@given(BEFORE, st.integers(-(10**6), 10**6), st.sampled_from([*FORMS, "%s", "so she has %s eggs", "that makes $%s in all."]))
def test_a_number_is_found_marked_or_last(before: str, number: int, form: str) -> None:
    found = final_number(before + form % number)
    assert found is not None and number_of(found) == number


@pytest.mark.parametrize(("find", "text", "found"), [
    (boxed, r"\boxed{\frac{1}{\sqrt{2}}} and", r"\frac{1}{\sqrt{2}}"), (boxed, r"\boxed 5", "5"), (boxed, r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (boxed, r"\boxed{3} then \boxed{4", "3"), (boxed, r"\boxed{", None), (boxed, "box 5", None), (boxed, r"\fbox{7}", "7"),
    (answer_tag, "<answer> 5 </answer>", " 5 "), (answer_tag, "<answer>5", None), (answer_tag, "5</answer>", None),
    (after_hashes, "#### 5\n#### 6\nmore", "6"), (after_hashes, "### 5", None),
    (stated, "The answer is 3.5 m. Then", "3.5 m"), (stated, "answer is $18", "$18"), (stated, "The best choice is (B)!", "(B)"),
    (stated, "My answer is:\n5", "5"), (stated, "no answers here", None), (stated, "answer:", None),
    (last_number, "1, then 1,234.50.", "1,234.50"), (last_number, "16 - 3", "3"), (last_number, "so -3", "-3"), (last_number, "CO2", None),
    (last_number, "5-3", "3"), (last_number, "$-7", "$-7"), (last_number, "1/2", "1/2"),
    (last_letter, "A dog. I think it is (B)", "B"), (last_letter, "Between B and C", "C"), (last_letter, "A", "A"), (last_letter, "A cat", None),
    (last_formula, r"$a$ and $\$36$ x", r"\$36"), (last_formula, "costs $5", None), (last_formula, r"\[x\]", "x"),
    (bare, "\\frac12", "\\frac12"), (bare, "two\nlines", None), (bare, "this is rather a sentence", None),
])  # fmt: skip
def test_each_finder(find: Callable[[str], str | None], text: str, found: str | None) -> None:
    assert find(text) == found


def test_marks_come_in_their_order() -> None:
    text = r"#### 3" + "\nThe answer is 4. <answer>2</answer> \\boxed{1}"
    for expected, gone in (("1", r"\boxed{1}"), ("2", "<answer>2</answer>"), ("3", "#### 3"), ("4", "The answer is 4.")):
        assert final_answer(text) == expected
        text = text.replace(gone, "")
    assert final_answer(text) is None


@pytest.mark.parametrize("text", ["", " \n", "<think>", "<think>\\boxed{5}", "</think>", "\\boxed{5}</think>", "<think>5</think> \n"])
def test_nothing_said_is_no_answer(text: str) -> None:
    assert final_answer(text) is None and final_number(text) is None and after_thinking(text).strip() == ""


@pytest.mark.parametrize("piece", ["a", "\\boxed{", "$", "\\(", "#### ", "the answer is ", "1,", "9", " ", "A ", "$$"])
def test_a_megabyte_of_anything_is_read_in_a_moment(piece: str) -> None:
    text, started = piece * (1_000_000 // len(piece)), time.process_time()
    final_answer(text), final_number(text), last_letter(text)
    assert time.process_time() - started < 5


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    for find in (*ANY, last_letter):
        found = find(text)
        assert found is None or isinstance(found, str)
