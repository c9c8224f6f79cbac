"""Equations are read as written and recomputed exactly; the reference is Python's own grammar over fractions."""

from __future__ import annotations

import ast
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model_core.rewards._equations import MAX_DIGITS, Equation, equations, evaluate

NUMBERS = st.one_of(st.integers(0, 999).map(str), st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda p: f"{p[0]}.{p[1]}"))
SPACES = st.sampled_from(["", " ", "  "])
OPERATORS = st.sampled_from(list("+-*/×·"))


@st.composite
def sides(draw: st.DrawFn, min_operations: int = 0) -> str:
    """A sum of products, with spaces and each of the signs that people write."""
    side = draw(st.sampled_from(["", "-"])) + draw(NUMBERS)
    for _ in range(draw(st.integers(min_operations, 5))):
        side += draw(SPACES) + draw(OPERATORS) + draw(SPACES) + draw(NUMBERS)
    return side


def reference(side: str) -> Fraction | None:
    """Value of the side by Python's precedence; None where it divides by zero."""
    text = side.replace("×", "*").replace("·", "*")

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Div):
                return left / right
            return left * right if isinstance(node.op, ast.Mult) else left + right if isinstance(node.op, ast.Add) else left - right
        return Fraction(ast.get_source_segment(text, node) or "")

    try:
        return value(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        return None


@settings(deadline=None)
@given(sides())
def test_a_side_has_the_value_that_pythons_grammar_gives_it(side: str) -> None:
    assert evaluate(side) == reference(side)


@settings(deadline=None)
@given(sides(min_operations=1), SPACES, st.integers(-3, 3))
def test_an_equation_holds_exactly_when_both_sides_are_equal(side: str, space: str, off: int) -> None:
    value = reference(side)
    assume(value is not None and value.denominator == 1)
    assert value is not None
    right = str(value + off)
    assert equations(f"{side}{space}={space}{right}") == (Equation(side, right, off == 0),)


SIMPLE = st.builds(lambda x, sign, y, right: (f"{x}{sign}{y}", str(right)), st.integers(0, 99), st.sampled_from("+-*/"),
                   st.integers(0, 99), st.integers(-99, 999))


@settings(deadline=None)
@given(st.lists(SIMPLE, max_size=6), st.sampled_from([";", "; ", "\n", ", ", " and ", ">> <<", ". So "]))
def test_all_are_found_in_order_whatever_stands_between(asked: list[tuple[str, str]], between: str) -> None:
    found = equations(between + between.join(f"{left}={right}" for left, right in asked) + between)
    assert [(equation.left, equation.right) for equation in found] == asked
    assert [equation.holds for equation in found] == [reference(left) == Fraction(right) for left, right in asked]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_and_what_is_found_stands_in_it(text: str) -> None:
    place = 0
    for equation in equations(text):
        for part in (equation.left, equation.right):
            found = text.find(part, place)
            assert found >= 0
            place = found + len(part)


@pytest.mark.parametrize("text", [
    "", "no numbers", "x=5", "5=5", "x5+3", "a1+1=2", "1.2.3+1=2", "3+2==5", "3+2=x", "3+2=5a1", "3+=5", "=5", "3 + 2", "2 3=5",
])
def test_what_is_no_equation_with_an_operation_is_not_found(text: str) -> None:
    assert equations(text) == ()


@pytest.mark.parametrize(("text", "held"), [
    ("2+3*4=14", True), ("2+3*4=20", False), ("100/8=12.5", True), ("1/3=0.33", False), ("7-10=-3", True), ("-3+5=2", True),
    ("0.1+0.2=0.3", True), ("1/3+2/3=1", True), ("8/2/2=2", True), ("6/0=0", False), ("0/5=0", True), ("3+2=5.", True), ("3+2=5.0", True),
])
def test_by_hand(text: str, held: bool) -> None:
    assert [equation.holds for equation in equations(text)] == [held]


def test_a_number_of_absurd_length_is_not_computed_and_never_holds() -> None:
    longest, absurd = "9" * MAX_DIGITS, "9" * (MAX_DIGITS + 1)
    assert evaluate(longest) == int(longest) and evaluate(absurd) is None and evaluate(f"0.{absurd}") is None
    assert [equation.holds for equation in equations(f"{longest}+0={longest}; {absurd}+0={absurd}")] == [True, False]


@pytest.mark.parametrize(("side", "expected"), [("3*-2", -6), ("3--2", 5), ("6/-2", -3), ("-3*-2", 6)])
def test_a_factor_may_be_negative(side: str, expected: int) -> None:
    assert evaluate(side) == expected
