"""Every row of the published sets: right answers are right and wrong ones wrong in every natural form; lm-eval agrees.

Source of the peer: lm-eval 0.4 as installed, its own task files, filters and metric; only its data come from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_core.evaluation.benchmarks._types import Benchmark
from model_core.evaluation.results import Answered, summarize
from tests.model_core.evaluation.published import FORMS, ROWS, problems_of, rows_of, wrong_answers


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ROWS)
def test_right_answers_are_right_and_wrong_ones_wrong(name: str, form: str) -> None:
    benchmark, problems = problems_of(name)
    assert len(problems) == ROWS[name]
    gold = {problem.row: [Answered(FORMS[form] % problem.expected)] for problem in problems}
    wrong = {problem.row: [Answered(FORMS[form] % other)] for problem, other in zip(problems, wrong_answers(name), strict=True)}
    right, false = summarize(benchmark, problems, gold), summarize(benchmark, problems, wrong)
    assert right["accuracy"] >= 0.995 and right["unscored"] == 0 == false["unscored"]
    assert false["accuracy"] <= 0.005, [one for one in false["problems"] if one["correct"]]
    assert right["num_problems"] == false["num_problems"] == ROWS[name]


def test_the_worked_solutions_themselves_are_right() -> None:
    """GSM8K's and MATH's own solutions, as people wrote them."""
    for name, field in (("gsm8k", "answer"), ("math500", "solution")):
        benchmark, problems = problems_of(name)
        grades = [benchmark.grade(problem, row[field]).correct for problem, row in zip(problems, rows_of(name), strict=True)]
        assert sum(grade is True for grade in grades) >= 0.995 * len(grades)


def test_a_choice_may_be_said_in_its_words() -> None:
    benchmark, problems = problems_of("arc_challenge")
    said = [benchmark.grade(problem, f"The correct answer is {dict(problem.choices)[problem.expected]}") for problem in problems]
    assert sum(grade.correct is True for grade in said) >= 0.97 * len(problems)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`peer(file, rows)`: lm-eval's task of one of its files, on our rows."""
    pytest.importorskip("lm_eval", reason="the peer is a development requirement")
    import lm_eval.tasks
    import yaml
    from lm_eval.api.task import ConfigurableTask

    folder = Path(lm_eval.tasks.__file__).parent

    def task(file: str, rows: list[dict[str, Any]]) -> Any:
        config = {key: value for key, value in yaml.safe_load((folder / file).read_text()).items() if key not in {"tag", "include"}}
        import datasets

        data = dict.fromkeys(("train", "validation", "test"), datasets.Dataset.from_list(rows))
        return ConfigurableTask(config={**config, "custom_dataset": lambda **_metadata: data})

    return task


def judged_by(task: Any, filter_name: str, rows: list[dict[str, Any]], texts: list[str]) -> list[bool]:
    """What the peer's filter and metric say of each text."""
    from lm_eval.api.instance import Instance

    chosen = next(one for one in task._filters if one.name == filter_name)
    asked = [Instance("generate_until", row, ("", {}), 0, metadata=("task", number, 1)) for number, row in enumerate(rows)]
    for instance, text in zip(asked, texts, strict=True):
        instance.resps = [text]
    chosen.apply(asked)
    return [task.process_results(one.doc, [one.filtered_resps[filter_name]])["exact_match"] == 1 for one in asked]


def agreement(benchmark: Benchmark, name: str, texts: list[str], theirs: list[bool]) -> float:
    ours = [benchmark.grade(problem, text).correct for problem, text in zip(problems_of(name)[1], texts, strict=True)]
    return sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(texts)


@pytest.mark.parametrize(("filter_name", "forms"), [
    ("strict-match", ["hashes"]), ("flexible-extract", ["plain"]),
    pytest.param("flexible-extract", ["hashes", "boxed"], marks=pytest.mark.slow),
])  # fmt: skip
def test_gsm8k_is_read_as_lm_eval_reads_it(peer: Any, filter_name: str, forms: list[str]) -> None:
    """Its strict filter sees only what stands after `####`, its flexible one the last number anywhere."""
    (benchmark, problems), rows = problems_of("gsm8k"), rows_of("gsm8k")
    task = peer("gsm8k/gsm8k.yaml", rows)
    for form in forms:
        for answers in ([problem.expected for problem in problems], wrong_answers("gsm8k")):
            texts = [FORMS[form] % answer for answer in answers]
            assert agreement(benchmark, "gsm8k", texts, judged_by(task, filter_name, rows, texts)) >= 0.99, form
    solutions = [row["answer"] for row in rows]
    assert agreement(benchmark, "gsm8k", solutions, judged_by(task, filter_name, rows, solutions)) >= 0.99


@pytest.mark.parametrize("form", ["%s", pytest.param("(%s).", marks=pytest.mark.slow)])
def test_arc_is_read_as_lm_eval_reads_it(peer: Any, form: str) -> None:
    """The peer begins the model's answer with “The best answer is” and judges what follows, one letter."""
    (benchmark, problems), rows = problems_of("arc_challenge"), rows_of("arc_challenge")
    task = peer("arc/arc_challenge_chat.yaml", rows)
    prefix = task.config.gen_prefix
    assert prefix == "The best answer is"
    for answers in ([problem.expected for problem in problems], wrong_answers("arc_challenge")):
        continued = [form % answer for answer in answers]
        theirs = judged_by(task, "remove_whitespace", rows, continued)
        assert agreement(benchmark, "arc_challenge", [f"{prefix} {text}" for text in continued], theirs) >= 0.99
        assert agreement(benchmark, "arc_challenge", continued, theirs) >= 0.99
