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


@pytest.mark.parametrize(
    "text", ["", "none", "-", "½ a cake", "1/0", "5/00", "1.5/2", "1e5", "1_000", "1-2", "9" * 61, "1.2.3", "3\n1/2"]
)
def test_what_is_no_single_number_is_none(text: str) -> None:
    assert number_of(text) is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\\"), max_size=450))
def test_any_text_is_read_and_equals_itself_when_it_says_something(text: str) -> None:
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


@pytest.mark.parametrize(("one", "other"), [
    ("Apollo 11", "Boeing 11"), ("5 cm", "5 km"), ("x = 5", "y = 5"), ("1,2", "12"), ("(2,4)", "24"), ("(2,4)", "(4,2)"), ("x2", "2"),
    ("5 million", "5"), ("5x", "5"), ("2k", "2"), ("2 pi", "2"), (r"2\pi", "2"), ("5²", "5"), ("52_8", "52_9"), ("(3,4]", "(3,4)"),
    (r"\text{(C)}", "D"), (r"\text{(C)}", r"\text{(C)} + 1"), ("p - q", "q - p"), ("B. Jupiter", "C"), (r"5x - 7y + 11z + 4 = 0", "0"), ("0", "5x=0"), (r"\frac{1}{3}", "0.33"),
    ("5" + " " * 500 + "6", "5"), ("R", "3R"),
])  # fmt: skip
def test_what_differs_is_different_in_both_directions(one: str, other: str) -> None:
    assert not same_answer(one, other) and not same_answer(other, one)


@pytest.mark.parametrize(("one", "other"), [
    ("Apollo 11", "11"), ("p - q", "p-q"), ("p - q", "-q + p"), ("52_8", "52_{8}"), ("1,-2", "-2,1"), ("3, 5, 7", "7,5,3"), (r"x \in [-2,7]", "[-2,7]"), ("y=2x+3", "2x+3"),
    (r"5x - 7y + 11z + 4 = 0", "-5x+7y-11z-4=0"), (r"1\pm\sqrt{19}", r"1+\sqrt{19},1-\sqrt{19}"), (r"864 \mbox{ inches}^2", "864"),
    (r"15\mbox{ cm}^2", "15 cm^2"), (r"\cot x", r"\frac{\cos x}{\sin x}"), ("6-5i", "-5i+6"), (r"137 \frac{1}{2}", "137.5"),
    (r"1\frac{4}{5}", "9/5"), (r"\text{(C)}", "C"), (r"10,\!080", "10080"), (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"\$32,\!348", "32348"), (r"5.4 \text{ cents}", "5.4"), (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"), (".0000672", "0.0000672"),
    (r"90^\circ", "$90^{\\circ}$"), ("$5 a day", "5"), (r"50\%", "50"), (r"-\$5", "−5"), ("४२", "42"), ("5²", "25"), ("√51", r"\sqrt{51}"),
    ("sqrt(51)", r"\sqrt{51}"), ("B. Jupiter", "(B)"), (r"\text{Evelyn}", "evelyn"), (r"\boxed{5}", "5"), (r"288 \pi", r"288\pi"),
    (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{5} \\ -3.6 \end{pmatrix}"),
])  # fmt: skip
def test_what_means_the_same_is_the_same_in_both_directions(one: str, other: str) -> None:
    assert same_answer(one, other) and same_answer(other, one)


WRAPPINGS = ["{}", " {} ", "${}$", "$${}$$", r"\({}\)", r"\[{}\]", r"\boxed{{{}}}", "**{}**", "{}.", r"$\boxed{{{}}}$.", r"\left({}\right)"]
FORMULAS = [r"\frac{14}{3}", r"\sqrt{51}", "p - q", r"x^2+1", r"3\pi", "17", "-2.5"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_setting_changes_no_answer(formula: str) -> None:
    for wrapping in WRAPPINGS:
        dressed = wrapping.format(formula)
        assert same_answer(formula, dressed) and same_answer(dressed, formula), dressed
        assert [same_answer(other, dressed) for other in FORMULAS] == [other == formula for other in FORMULAS]


@given(st.integers(1, 999), st.integers(1, 99), st.integers(1, 99))
def test_every_writing_of_a_fraction_is_one(whole: int, above: int, below: int) -> None:
    value = whole + Fraction(above, below)
    writings = [
        f"{whole} {above}/{below}", f"{whole}\t{above}/{below}",
        rf"{whole}\frac{{{above}}}{{{below}}}", rf"{whole} \tfrac{{{above}}}{{{below}}}",
        f"{whole * below + above}/{below}", rf"$\dfrac{{{whole * below + above}}}{{{below}}}$",
    ]  # fmt: skip
    assert {number_of(writing) for writing in writings} == {value}
    assert not same_answer(writings[0], f"{whole + 1} {above}/{below}")


def test_a_long_text_is_compared_and_never_read() -> None:
    long = "9^{9^{9}}+" * 300
    assert same_answer(long, f"  {long}\n") and not same_answer("5", long) and not same_answer(long, "5")
    assert number_of("5" + " " * 3000) is None
