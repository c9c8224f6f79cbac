"""Two answers are one when they mean one number or say the same words; a number is read exactly or not at all."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.evaluation.answers import number_of, same_answer

INTEGERS = st.integers(-(10**15), 10**15)
WORDS = st.text(st.characters(categories=["L", "Zs"]), max_size=20)


@settings(deadline=None)
@given(INTEGERS, st.sampled_from(["{}", "{:,}", " {} ", "{} €", "{:,} keys", "{}.0", "{:,}.00", "= {}", "{}."]))
def test_a_number_is_the_same_however_it_is_dressed(number: int, form: str) -> None:
    dressed = form.format(number)
    assert number_of(dressed) == number
    assert same_answer(str(number), dressed) and same_answer(dressed, str(number))
    assert not same_answer(str(number + 1), dressed)


@settings(deadline=None)
@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_is_exact(above: int, below: int) -> None:
    assert number_of(f"{above}/{below}") == Fraction(above, below)
    assert same_answer(f"{above}/{below}", f"{above * 3}/{below * 3}")


@settings(deadline=None)
@given(INTEGERS, st.integers(0, 10**6))
def test_decimals_are_not_rounded(whole: int, thousandths: int) -> None:
    text = f"{whole}.{thousandths:06d}"
    assert number_of(text) == Fraction(text)
    assert not same_answer(text, f"{text}1")


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(100, 999))
def test_of_two_numbers_neither_is_taken(first: int, second: int) -> None:
    assert number_of(f"{first} or {second}") is None
    assert not same_answer(str(first), f"{first} or {second}")


@pytest.mark.parametrize("text", ["", "none", "-", "½ a cake", "1/0", "5/00", "1.5/2", "1e5", "1_000", "1-2", "9" * 61, "1.2.3"])
def test_what_is_no_single_number_is_none(text: str) -> None:
    assert number_of(text) is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\\"), max_size=450))
def test_any_text_is_read_and_equals_itself_unless_it_says_nothing(text: str) -> None:
    number = number_of(text)
    assert number is None or isinstance(number, Fraction)
    assert same_answer(text, text) or not any(sign.isalnum() for sign in text)
    assert text.split() or not same_answer(text, text)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_words_are_compared_without_case_and_space_and_in_both_directions(left: str, right: str) -> None:
    assert same_answer(left, right) == same_answer(right, left) == (left.casefold().split() == right.casefold().split() != [])
    spaced = "  " + "   ".join(left.casefold().split()) + " . "
    assert same_answer(left, spaced) == bool(left.split())


@pytest.mark.parametrize(("expected", "given"), [("5", "five"), ("five", "5"), ("5", ""), ("", ""), ("...", "..."), ("a b", "ab")])
def test_a_number_is_no_word_and_nothing_equals_nothing(expected: str, given: str) -> None:
    assert not same_answer(expected, given)
