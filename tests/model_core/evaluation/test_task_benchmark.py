"""Generated problems as a benchmark: rows as a task makes them, judged by its verifier, also in the majority."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_core.errors import DataError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.identity import extractor_of
from model_core.evaluation.results import Answered, summarize
from model_core.evaluation.running import evaluate
from model_core.evaluation.sources import Given
from model_core.tasks import TASKS


def rows_of(name: str, num: int, **settings: Any) -> list[dict[str, Any]]:
    cls = TASKS.get(name)
    return [row for split, row in cls(cls.Config.parse(settings)).generate(3, 0, num) if split == "held_out"]


@pytest.mark.parametrize("name", ["arithmetic", "sums", "two_step_stories"])
def test_the_right_answer_is_right_in_every_form_and_another_is_wrong(name: str) -> None:
    benchmark = BENCHMARKS.get("task")()
    for number, row in enumerate(rows_of(name, 5)):
        problem = benchmark.problem(number, row)
        assert problem.prompt == row["prompt"]
        for text in (row["answer"], f"<think>no</think>{row['answer']}", f"So it is \\boxed{{{row['answer']}}}, I think."):
            assert benchmark.grade(problem, text).correct is True, text
        assert benchmark.grade(problem, f"{row['answer']}7").correct is False
        assert benchmark.grade(problem, "<think>still").correct is False
        assert benchmark.is_right(problem, row["answer"]) is True


@pytest.mark.slow
def test_a_verifier_of_others_judges_apart_and_what_it_cannot_tell_is_unscored() -> None:
    benchmark = BENCHMARKS.get("task")()
    row = rows_of("reasoning_gym", 1)[0]
    problem = benchmark.problem(0, row)
    assert benchmark.grade(problem, row["answer"]).correct is True
    without = benchmark.problem(0, {**row, "meta": {}})
    assert benchmark.grade(without, row["answer"]).correct is None
    found = summarize(benchmark, [without], {0: [Answered(row["answer"])]})
    assert found["unscored"] == 1 and found["accuracy"] is None


def test_a_row_of_no_task_is_refused_by_its_number() -> None:
    with pytest.raises(DataError, match="Row 4: there is no task 'summs'"):
        BENCHMARKS.get("task")().problem(4, {"prompt": "1+1", "answer": "2", "task": "summs"})


def test_a_result_says_by_which_extractor(tmp_path: Path) -> None:
    rows = rows_of("sums", 2)
    data, texts = tmp_path / "data.jsonl", tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts.write_text("".join(json.dumps({"row": n, "completion": row["answer"]}) + "\n" for n, row in enumerate(rows)))
    result = evaluate("task", data, Given(texts, num_rows=2), out=tmp_path / "out.json")
    assert result["accuracy"] == 1 and result["extractor"] == extractor_of(BENCHMARKS.get("task"))
    assert result["extractor"]["sha256"] != extractor_of(BENCHMARKS.get("gsm8k"))["sha256"] and "number" in result["extractor"]["words"]
