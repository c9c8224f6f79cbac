"""The real benchmarks beside the project, and completions of their problems that end in a given answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.benchmarks._types import Benchmark, Problem
from model_core.evaluation.problems import read_problems

DATA = Path(__file__).parents[4] / "shared" / "data"
FOLDERS = {"gsm8k": 1319, "math500": 500, "arc_challenge": 1172, "aime24": 30}
FORMS = (
    "<think>Let me see; 7 comes up, and \\boxed{{1}} was my first guess.</think>The answer follows.\n\\boxed{{{}}}",
    "We have 3 steps to do. So the answer is {}.", "First 2 + 2 = 4, which does not help.\n#### {}",
    "<think>12 apples, (B) perhaps</think><answer>{}</answer>", "Reasoning with 99 numbers.\n\nAnswer: {}",
)  # fmt: skip
"""How completions end; each names other numbers and letters before."""


def data_of(name: str) -> Path:
    """The file of a benchmark; skips the test without it."""
    path = DATA / name / "test.jsonl"
    if not path.exists():
        pytest.skip(f"the real {name} is not beside the project")
    return path


def problems_of(name: str) -> tuple[Benchmark, list[Problem]]:
    """All problems of a benchmark."""
    benchmark: Benchmark = BENCHMARKS.get(name)()
    return benchmark, read_problems(benchmark, data_of(name))


def ending_in(problem: Problem, answer: str) -> str:
    """A completion that gives `answer`, in a form that goes round with the rows; LaTeX is written between dollars in prose."""
    form = FORMS[problem.row % len(FORMS)]
    is_prose = "answer is" in form or "Answer:" in form
    return form.format(f"${answer}$" if is_prose and "\\" in answer else answer)


def wrong_answer(problem: Problem, problems: list[Problem]) -> str:
    """An answer that is not right: another choice, the number after, or another problem's answer."""
    if problem.choices:
        labels = [label for label, _text in problem.choices]
        return labels[(labels.index(problem.expected) + 1) % len(labels)]
    bare = problem.expected.replace(",", "")
    if bare.isdecimal():
        return str(int(bare) + 1)
    others = (problems[(problem.row + step) % len(problems)].expected for step in range(1, len(problems)))
    return next(other for other in others if other != problem.expected)
