"""The published sets where they lie beside the project, and completions of them with right and with wrong answers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.benchmarks._types import Benchmark, Problem

DATA = Path(__file__).parents[4] / "shared" / "data"
ROWS = {"gsm8k": 1319, "math500": 500, "arc_challenge": 1172, "aime24": 30}
FORMS = {
    "boxed": "<think>It could be \\boxed{7}, or A.</think>Let me see: 3 of 12 are gone.\n\n\\boxed{%s}",
    "display": "So $x$ is found:\n$$\\boxed{%s}$$\nThat was step 3.",
    "stated": "First 2 + 2 = 4, then we go on. The answer is %s.",
    "bold": "<think>The answer is 9.</think>Here is why, in 2 steps.\n\n**Answer:** %s",
    "hashes": "She sells 4 * 2 = 8 of them.\n#### %s",
    "tag": "<think>the answer is B</think><answer>%s</answer>",
    "plain": "%s",
    "thought": "We opened the box before.</think>\n\nThe final answer is: $%s$",
}


def path_of(name: str) -> Path:
    path = DATA / name / "test.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: the published sets are no part of the project")
    return path


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path_of(name).read_text(encoding="utf-8").splitlines()]


@cache
def problems_of(name: str) -> tuple[Benchmark, list[Problem]]:
    benchmark = BENCHMARKS.get(name)()
    return benchmark, [benchmark.problem(number, row) for number, row in enumerate(rows_of(name))]


def wrong_answers(name: str) -> list[str]:
    """One for each problem: the next other choice, one more than the number, or the next row's answer that is written differently."""
    _benchmark, problems = problems_of(name)
    return [_wrong(problems, number) for number in range(len(problems))]


def _wrong(problems: list[Problem], number: int) -> str:
    problem = problems[number]
    labels = [label for label, _text in problem.choices]
    if labels:
        return labels[(labels.index(problem.expected) + 1 + number % (len(labels) - 1)) % len(labels)]
    digits = problem.expected.replace(",", "")
    if digits.lstrip("-").isdecimal() and number % 2:
        return str(int(digits) + 1)
    following = (problems[(number + step) % len(problems)].expected for step in range(1, len(problems)))
    return next(other for other in following if other.replace(",", "").lstrip("0") != digits.lstrip("0"))
