"""Right completions of the real benchmarks are right and wrong ones wrong, all rows of them; lm-eval's extraction agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.api.metrics import exact_match_fn
from lm_eval.filters.extraction import RegexFilter, WhitespaceFilter

from model_core.evaluation.benchmarks import BENCHMARKS
from tests.model_core.evaluation.real_data import FOLDERS, ending_in, problems_of, wrong_answer


@pytest.mark.parametrize(("name", "num_rows"), FOLDERS.items())
def test_gold_completions_are_right_and_wrong_ones_wrong(name: str, num_rows: int) -> None:
    benchmark, problems = problems_of(name)
    assert len(problems) == num_rows
    right = [benchmark.grade(problem, ending_in(problem, problem.expected)).correct for problem in problems]
    wrong = [benchmark.grade(problem, ending_in(problem, wrong_answer(problem, problems))).correct for problem in problems]
    assert right.count(True) >= 0.995 * num_rows
    assert wrong.count(True) <= 0.005 * num_rows and None not in wrong


def task_of(path: str) -> dict[str, Any]:
    """The peer's own description of a task."""
    found: dict[str, Any] = yaml.safe_load(Path(lm_eval.__path__[0], "tasks", path).read_text())
    return found


def agreement(ours: list[bool | None], theirs: list[bool]) -> float:
    return sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(ours)


@pytest.mark.parametrize("way", ["strict-match", "flexible-extract"])
def test_lm_evals_gsm8k_agrees(way: str) -> None:
    benchmark, problems = problems_of("gsm8k")
    task = task_of("gsm8k/gsm8k.yaml")
    (steps,) = [one["filter"] for one in task["filter_list"] if one["name"] == way]
    settings = {key: value for key, value in steps[0].items() if key != "function"}
    metric = {key: value for key, value in task["metric_list"][0].items() if key not in {"metric", "aggregation", "higher_is_better"}}
    answers = [problem.expected if problem.row % 3 else wrong_answer(problem, problems) for problem in problems]
    texts = [f"It costs 12 dollars and 7 cents, so we go on.\n#### {answer}" for answer in answers]
    found = [one[0] for one in RegexFilter(**settings).apply([[text] for text in texts], [{}] * len(texts))]
    theirs = [
        bool(exact_match_fn(predictions=[one], references=[f"#### {problem.expected}"], **metric)["exact_match"])
        for one, problem in zip(found, problems, strict=True)
    ]  # fmt: skip
    ours = [benchmark.grade(problem, text).correct for problem, text in zip(problems, texts, strict=True)]
    assert agreement(ours, theirs) >= 0.99 and 0.6 < sum(theirs) / len(theirs) < 0.7


def test_lm_evals_arc_agrees() -> None:
    """Its chat task lets the model go on after “The best answer is” and compares what is left without white space."""
    benchmark, problems = problems_of("arc_challenge")
    task = task_of("arc/arc_challenge_chat.yaml")
    metric = {key: value for key, value in task["metric_list"][0].items() if key not in {"metric", "aggregation", "higher_is_better"}}
    answers = [problem.expected if problem.row % 3 else wrong_answer(problem, problems) for problem in problems]
    assert [step["function"] for step in task["filter_list"][0]["filter"]] == ["remove_whitespace", "take_first"]
    found = [one[0] for one in WhitespaceFilter().apply([[f" {answer}"] for answer in answers], [{}] * len(answers))]
    theirs = [
        bool(exact_match_fn(predictions=[one], references=[problem.expected], **metric)["exact_match"])
        for one, problem in zip(found, problems, strict=True)
    ]  # fmt: skip
    ours = [benchmark.grade(problem, f"The best answer is {answer}.").correct for answer, problem in zip(answers, problems, strict=True)]
    assert agreement(ours, theirs) >= 0.99 and 0.6 < sum(theirs) / len(theirs) < 0.7


@pytest.mark.parametrize("name", BENCHMARKS.names())
@pytest.mark.parametrize("text", ["", " ", "<think>", "</think>", "<think>\\boxed{", "\\boxed{" * 5000, "٣٤", "1" * 100_000, "a " * 500_000, "\x00\ud7ff"])
def test_no_completion_ends_the_grading(name: str, text: str) -> None:
    cls = BENCHMARKS.get(name)
    row = {
        "question": "What?", "problem": "What?", "answer": "#### 5" if name == "gsm8k" else "5", "solution": "5", "id": 1,
        **({"choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "A"} if name == "arc_challenge" else {}),
    }  # fmt: skip
    problem = cls().problem(0, row)
    grade = cls().grade(problem, text)
    assert grade.correct in {False, None} and (grade.reason or grade.answer)
