"""From completions to a benchmark's result: every sample graded, means with intervals, pass@k, majority@k.

A sample that cannot be judged or was never given is unscored: counted with its reason and left out of every mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model_core.errors import Undecided
from model_core.evaluation.benchmarks._types import Benchmark, Grade, Problem
from model_core.evaluation.statistics import clustered_interval, clustered_mean, majority, pass_at_k


@dataclass(frozen=True)
class Answered:
    """One sample of a problem: a completion, or why there is none."""

    completion: str | None
    finish_reason: str = ""
    """"stop", "length", or empty where it is not known."""
    failure: str = ""


def summarize(benchmark: Benchmark, problems: Sequence[Problem], answers: Mapping[int, Sequence[Answered]]) -> dict[str, Any]:
    """The result over the problems that have samples, ready for JSON; what nothing was measured of is None.

    `accuracy` is pass@1: the mean over problems of the share of right samples; `stderr` is clustered by problem.
    """
    judged = [_problem(benchmark, problem, answers[problem.row]) for problem in problems if answers.get(problem.row)]
    shares = [[float(one["correct"]) for one in entry["samples"] if one["correct"] is not None] for entry in judged]
    scored = [values for values in shares if values]
    accuracy, stderr = clustered_mean(scored)
    low, high = clustered_interval(scored) if scored else (None, None)
    samples = [sample for entry in judged for sample in entry["samples"]]
    reasons = Counter(sample["reason"] for sample in samples if sample["correct"] is None)
    return {
        "accuracy": _known(accuracy), "stderr": _known(stderr), "low": low, "high": high,
        "num_problems": len(judged), "num_without_completion": len(problems) - len(judged), "num_samples": len(samples),
        "pass_at_k": _pass_at(scored), "majority": _majority(judged),
        "unscored": sum(reasons.values()), "unscored_reasons": dict(reasons.most_common(20)),
        "no_answer": sum(sample["answer"] is None and sample["correct"] is not None for sample in samples),
        "truncated": sum(sample["finish_reason"] == "length" for sample in samples),
        "references": [asdict(reference) for reference in benchmark.references], "problems": judged,
    }  # fmt: skip


def _problem(benchmark: Benchmark, problem: Problem, answers: Sequence[Answered]) -> dict[str, Any]:
    """One entry of `problems`. Its `correct` is that of the majority, which for one sample is the sample's."""
    grades = [_grade(benchmark, problem, answered) for answered in answers]
    known = [grade.correct for grade in grades if grade.correct is not None]
    try:
        chosen = majority([grade.answer for grade in grades if grade.answer is not None], benchmark.same)
        correct = benchmark.is_right(problem, chosen) if chosen is not None else False if known else None
    except Undecided:
        chosen, correct = None, None
    return {
        "row": problem.row, "expected": problem.expected, "correct": correct, "answer": chosen,
        "accuracy": sum(known) / len(known) if known else None,
        "samples": [
            asdict(grade) | {"finish_reason": answered.finish_reason} for grade, answered in zip(grades, answers, strict=True)
        ],
    }  # fmt: skip


def _grade(benchmark: Benchmark, problem: Problem, answered: Answered) -> Grade:
    if answered.completion is None:
        return Grade(None, None, answered.failure or "no completion was given")
    return benchmark.grade(problem, answered.completion)


def _pass_at(scored: Sequence[Sequence[float]]) -> dict[str, float]:
    """pass@k for 1, 2, 4 … up to the samples that every problem has."""
    fewest = min(map(len, scored), default=0)
    counts = [2**power for power in range(fewest.bit_length())]
    wanted = sorted({*counts, fewest} - {0})
    return {
        str(k): math.fsum(pass_at_k(len(values), round(sum(values)), k) for values in scored) / len(scored) for k in wanted
    }


def _majority(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy of the answer that most samples of a problem give; `k` is the number of samples of the fullest problem."""
    decided = [[float(entry["correct"])] for entry in judged if entry["correct"] is not None]
    accuracy, stderr = clustered_mean(decided)
    k = max((len(entry["samples"]) for entry in judged), default=0)
    return {"k": k, "accuracy": _known(accuracy), "stderr": _known(stderr), "num_problems": len(decided)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
