"""What every benchmark is, its pinned settings and figures, its bad rows, and choices in all their writings."""

from __future__ import annotations

from typing import Any

import pytest

from model_core.errors import ConfigError, DataError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.benchmarks._choices import choice_in
from model_core.evaluation.benchmarks._types import Benchmark

CHOICES = (("A", "Planetary days become longer."), ("B", "iron"), ("C", "iron oxide"), ("D", "a cat"), ("E", "Vitamin C"))


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_a_benchmark_says_what_it_is_and_pins_its_settings(name: str) -> None:
    cls = BENCHMARKS.get(name)
    assert issubclass(cls, Benchmark) and cls.title and cls.licence and cls.source and cls.__doc__
    config = cls.Config.parse({})
    assert (config.temperature, config.top_p, config.max_new_tokens) == (0.6, 0.95, 32768), "arXiv 2501.12948, section 3"
    assert 4 <= config.num_samples <= 64 and all(field.description for field in cls.Config.model_fields.values())
    assert all(0 < one.value < 100 and one.source for one in cls.references)
    assert cls(config).config == cls.Config.parse(config.resolved())
    with pytest.raises(ConfigError, match="no place for the question"):
        cls(cls.Config.parse({"prompt": "hello"}))
    with pytest.raises(DataError, match="Row 7"):
        cls().problem(7, {"id": 1})


def test_figures_are_those_of_the_article_and_of_the_papers() -> None:
    figures = {(name, one.model, one.metric, "article" in one.source): one.value for name, cls in BENCHMARKS.items() for one in cls.references}
    assert figures["math500", "DeepSeek-R1", "pass@1", True] == 97.3 and figures["math500", "GPT-4", "pass@1", True] == 98.2
    assert figures["arc_challenge", "DeepSeek-R1", "pass@1", True] == 88.5 and figures["arc_challenge", "GPT-4", "pass@1", True] == 90.1
    assert figures["gsm8k", "DeepSeek-R1", "pass@1", True] == 82.7 and figures["gsm8k", "GPT-4", "pass@1", True] == 85.5
    assert figures["math500", "DeepSeek-R1", "pass@1", False] == 97.3 and figures["aime24", "DeepSeek-R1", "pass@1", False] == 79.8


def test_a_brace_in_a_question_stays_and_choices_are_listed() -> None:
    arc = BENCHMARKS.get("arc_challenge")()
    row = {"question": "Which {choices}?", "choices": {"text": ["one", "two"], "label": ["1", "2"]}, "answerKey": "2"}
    problem = arc.problem(0, row)
    assert problem.prompt.startswith("Which {choices}?\nA. one\nB. two\n") and problem.expected == "B"
    custom = BENCHMARKS.get("custom")().problem(0, {"question": "Which?", "choices": ["one", "two"], "answer": "two"})
    assert custom.prompt.startswith("Which?\nA. one\nB. two\n\nPlease") and custom.expected == "B"


@pytest.mark.parametrize(("text", "label"), [
    ("B", "B"), ("(b)", "B"), ("B.", "B"), ("B. iron", "B"), (r"\boxed{\text{B}}", "B"), (r"\boxed{B. iron}", "B"), ("The answer is **B**.", "B"),
    ("The correct option is (C), because iron rusts.", "C"), ("iron", "B"), ("The answer is iron.", "B"), ("The answer is iron oxide", "C"),
    ("planetary days become longer", "A"), ("Answer: a cat", "D"), ("It is a cat.", "D"), ("A is right. No: so it must be D", "D"),
    ("<think>A</think>\n\nThe answer is D", "D"), ("I do not know.", None), ("", None), ("F", None), ("Vitamin C", "E"), ("The answer is iron or a cat", None),
    ("Not B but, all things considered, " + "well " * 60 + "(D)", "D"),
])  # fmt: skip
def test_a_choice_is_its_letter_or_its_words(text: str, label: str | None) -> None:
    assert choice_in(text, CHOICES) == label


@pytest.mark.parametrize("choices", [None, [], ["one"], ["one", 2], "one", {"text": ["one", "two"]}, {"text": ["a", "b"], "label": ["A"]},
                                     {"text": ["a", "b"], "label": ["A", "A"]}, ["x"] * 11])  # fmt: skip
def test_choices_that_are_none_are_refused(choices: Any) -> None:
    with pytest.raises(DataError, match="Row 3: choices must be 2 to 10 texts"):
        BENCHMARKS.get("arc_challenge")().problem(3, {"question": "?", "choices": choices, "answerKey": "A"})


@pytest.mark.parametrize(("name", "row"), [
    ("arc_challenge", {"question": "?", "choices": ["a", "b"], "answerKey": "C"}), ("custom", {"question": "?", "choices": ["a", "b"], "answer": "c"}),
    ("custom", {"question": "?", "answer": [5]}), ("custom", {"question": "?", "answer": float("nan")}), ("gsm8k", {"question": "?", "answer": "#### five"}),
])  # fmt: skip
def test_a_row_without_a_right_answer_is_refused(name: str, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Row 3"):
        BENCHMARKS.get(name)().problem(3, row)


@pytest.mark.parametrize(("answer", "right", "wrong"), [
    (5, "so 5", "so 6"), ("Paris", "Paris", "London"), (r"\frac{1}{2}", "0.5", "0.6"), (0.25, r"\boxed{\frac{1}{4}}", "1/3"),
    ("x^2+1", "The answer is $1+x^2$.", "x^2-1"),
])  # fmt: skip
def test_your_own_problems_may_have_any_answer(answer: Any, right: str, wrong: str) -> None:
    custom = BENCHMARKS.get("custom")()
    problem = custom.problem(0, {"question": "?", "answer": answer})
    assert custom.grade(problem, right).correct is True and custom.grade(problem, wrong).correct is False


@pytest.mark.parametrize("name", BENCHMARKS.names())
@pytest.mark.parametrize("text", ["", " ", "<think>", "</think>", "<think>\\boxed{", "\\boxed{" * 5000, "٣٤", "1" * 100_000, "a " * 500_000, "\x00\ud7ff"])
def test_no_completion_ends_the_grading(name: str, text: str) -> None:
    cls = BENCHMARKS.get(name)
    row = {
        "question": "What?", "problem": "What?", "answer": "#### 5" if name == "gsm8k" else "5", "solution": "5", "id": 1,
        "prompt": "What?", "task": "sums",
        **({"choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "A"} if name == "arc_challenge" else {}),
    }  # fmt: skip
    problem = cls().problem(0, row)
    grade = cls().grade(problem, text)
    assert grade.correct in {False, None} and (grade.reason or grade.answer)
