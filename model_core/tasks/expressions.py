"""Nested expressions with precedence and parentheses, reduced one operation at a time: `(4+3)*2-5=` by `4+3=7;7*2=14;14-5=9`.

Source: none, ours. A step is right when it is the next of the expression that is left: both its operands stand there side
by side under its sign, and no operation that binds stronger comes first.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from model_core.evaluation.answers import number_of
from model_core.registry import registered
from model_core.rewards._equations import MAX_DIGITS, Equation
from model_core.tasks._problems import Levels, Problem, StepTask

_VALUES = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}
_TOKEN = re.compile(r"\d+|[-+*/()]")
_STEP = re.compile(r"(-?\d+)\s*([-+*/×·])\s*(-?\d+)")
MAX_RESULT = 10_000
"""Products stay below it, so that a step is about the order of operations and not about long numbers."""
MAX_PROMPT_CHARS = 400


@dataclass(frozen=True)
class Node:
    """`left sign right`; a number is an int."""

    left: Node | int
    sign: str
    right: Node | int


@registered
class Expressions(StepTask):
    """One expression of whole numbers; every operation in it has a whole result."""

    name: ClassVar[str] = "expressions"

    class Config(Levels):
        """How deep the expressions are and of which numbers."""

        max_level: int = Field(4, ge=1, le=12)
        """Hardest level. The level is the number of operations."""
        max_number: int = Field(20, ge=2, le=999)
        """Largest number in an expression; the smallest is 1."""
        can_be_negative: bool = False
        """Whether a step may have a result below 0."""

    def __init__(self, config: Config | None = None) -> None:
        self.config: Expressions.Config = config or self.Config()

    def _problem(self, draw: random.Random, level: int) -> Problem:
        tree = self._tree(draw, level)
        steps = [f"{x}{sign}{y}={result}" for x, sign, y, result in reductions(tree)]
        return Problem(f"{written(tree)}=", ";".join(steps), str(value_of(tree)), level)

    def _tree(self, draw: random.Random, num_operations: int) -> Node | int:
        if num_operations == 0:
            return draw.randint(1, self.config.max_number)
        num_left = draw.randrange(num_operations)
        left, right = self._tree(draw, num_left), self._tree(draw, num_operations - 1 - num_left)
        return Node(left, draw.choice(self._signs(value_of(left), value_of(right))), right)

    def _signs(self, x: int, y: int) -> list[str]:
        """What may stand between two results; a sum always may."""
        allowed = {
            "+": True, "-": self.config.can_be_negative or x >= y, "*": abs(x * y) < MAX_RESULT,
            "/": abs(y) > 1 and x % y == 0,
        }  # fmt: skip
        return [sign for sign, is_allowed in allowed.items() if is_allowed]

    def _right(self, prompt: str, found: tuple[Equation, ...]) -> list[bool]:
        """A wrong result is carried on as it is claimed, so that one slip is one wrong step."""
        tree = parsed(prompt)
        right = []
        for equation in found:
            at_once = tree is not None and equation.left.replace(" ", "") == written(tree)
            reduced = _integer(equation.right) if at_once else None if tree is None else _after(tree, equation)
            right.append(equation.holds and reduced is not None)
            tree = tree if reduced is None else reduced
        return right

    def _value(self, prompt: str) -> int | None:
        tree = parsed(prompt)
        return None if tree is None else value_of(tree)


def written(tree: Node | int) -> str:
    """The text of an expression with no more parentheses than `parsed` needs to give the same tree."""
    if isinstance(tree, int):
        return str(tree)
    left, right = written(tree.left), written(tree.right)
    if isinstance(tree.left, Node) and _BINDS[tree.left.sign] < _BINDS[tree.sign]:
        left = f"({left})"
    if isinstance(tree.right, Node) and _BINDS[tree.right.sign] <= _BINDS[tree.sign]:
        right = f"({right})"
    return f"{left}{tree.sign}{right}"


def parsed(prompt: str) -> Node | int | None:
    """The tree of the expression before `=`; None when the prompt is no expression of ours or an operation is not whole."""
    text = prompt.strip().removesuffix("=").replace(" ", "")
    tokens = _TOKEN.findall(text)
    if len(text) > MAX_PROMPT_CHARS or "".join(tokens) != text or any(len(token) > MAX_DIGITS for token in tokens):
        return None
    try:
        tree, end = _sum(tokens, 0)
        return tree if end == len(tokens) and isinstance(value_of(tree), int) else None
    except (IndexError, ValueError, ArithmeticError):
        return None


def value_of(tree: Node | int) -> int:
    """What the expression comes to. Raises ArithmeticError where a division is not whole."""
    if isinstance(tree, int):
        return tree
    x, y = value_of(tree.left), value_of(tree.right)
    if tree.sign == "/" and (y == 0 or x % y):
        raise ArithmeticError(f"{x} / {y} is not whole")
    result: int = _VALUES[tree.sign](x, y)
    return result


def reductions(tree: Node | int) -> Iterator[tuple[int, str, int, int]]:
    """Operand, sign, operand and result of each operation, from the left and from the inside."""
    if isinstance(tree, Node):
        yield from reductions(tree.left)
        yield from reductions(tree.right)
        x, y = value_of(tree.left), value_of(tree.right)
        yield x, tree.sign, y, value_of(tree)


def _after(tree: Node | int, equation: Equation) -> Node | int | None:
    """The tree with the operation of `equation` replaced by its result; None when it is not there to be reduced."""
    step, result = _STEP.fullmatch(equation.left.strip()), _integer(equation.right)
    if step is None or result is None or max(len(step[1]), len(step[3])) > MAX_DIGITS:
        return None
    sign = "*" if step[2] in "×·" else step[2]
    replaced = _replaced(tree, Node(int(step[1]), sign, int(step[3])), result)
    return None if replaced == tree else replaced


def _replaced(tree: Node | int, wanted: Node, result: int) -> Node | int:
    """The first place from the left where `wanted` stands is replaced."""
    if isinstance(tree, int):
        return tree
    if tree == wanted:
        return result
    left = _replaced(tree.left, wanted, result)
    return Node(left, tree.sign, tree.right if left != tree.left else _replaced(tree.right, wanted, result))


def _integer(text: str) -> int | None:
    number = number_of(text)
    return int(number) if number is not None and number.denominator == 1 else None


def _sum(tokens: list[str], at: int) -> tuple[Node | int, int]:
    return _chain(tokens, at, "+-")


def _chain(tokens: list[str], at: int, signs: str) -> tuple[Node | int, int]:
    """Operands under `signs`, from the left: a sum of products, or a product of atoms."""
    below = _atom if signs == "*/" else _product
    tree, at = below(tokens, at)
    while at < len(tokens) and tokens[at] in signs:
        sign = tokens[at]
        right, at = below(tokens, at + 1)
        tree = Node(tree, sign, right)
    return tree, at


def _product(tokens: list[str], at: int) -> tuple[Node | int, int]:
    return _chain(tokens, at, "*/")


def _atom(tokens: list[str], at: int) -> tuple[Node | int, int]:
    if tokens[at] != "(":
        return int(tokens[at]), at + 1
    tree, end = _sum(tokens, at + 1)
    if tokens[end] != ")":
        raise ValueError("a parenthesis is not closed")
    return tree, end + 1
