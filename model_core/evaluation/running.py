"""Runs a benchmark from data to result: asks a source for what is missing, keeps it, grades all, writes the JSON.

A source is whoever completes: `sources` has texts that are given, an OpenAI-compatible endpoint and a checkpoint. What
is kept beside the result lets a call that was cut off go on; see `stored`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from model_core.config.base import StrictModel
from model_core.errors import ConfigError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.benchmarks._types import Benchmark, Problem
from model_core.evaluation.identity import extractor_of
from model_core.evaluation.problems import digest, read_problems
from model_core.evaluation.results import Answered, summarize
from model_core.evaluation.stored import Stored
from model_core.rundir import write_json

Add = Callable[[int, Sequence[Answered]], None]
Progress = Callable[[int, int], None]


class Source(Protocol):
    """Whoever completes prompts. What costs nothing to get again (`is_kept` false) is not kept beside the result."""

    is_kept: bool

    def settings(self) -> dict[str, Any]:
        """What makes its completions its own; completions of other settings are never mixed with them."""
        ...

    def answer(self, problems: Sequence[Problem], benchmark: Benchmark, *, seed: int, done: frozenset[int], add: Add) -> None:
        """Hands the samples of each problem whose row is not `done` to `add`, in any order; a sample that failed says why."""
        ...


def evaluate(
    name: str, data: str | Path, source: Source, *, out: str | Path, overrides: dict[str, Any] | None = None,
    limit: int | None = None, seed: int = 0, on_progress: Progress | None = None,
) -> dict[str, Any]:
    """The result of benchmark `name` on the first `limit` rows of `data`, which is written to `out` as well.

    Raises ConfigError, DataError or UnknownName; a request that fails for good is unscored instead.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; ask at least 1 problem, or leave it out for all.", field="limit")
    cls = BENCHMARKS.get(name, field="benchmark")
    config: StrictModel = cls.Config.parse(overrides or {})
    benchmark: Benchmark = cls(config)
    problems = read_problems(benchmark, data, limit=limit)
    settings = {"benchmark": name, **config.resolved(), "data_sha256": digest(data), "seed": seed, **source.settings()}
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    answers: dict[int, Sequence[Answered]] = {}
    if source.is_kept:
        with Stored(out.with_name(out.name + ".samples.jsonl"), settings) as stored:
            answers |= stored.answers
            _ask(source, problems, benchmark, seed, answers, stored.add, on_progress)
    else:
        _ask(source, problems, benchmark, seed, answers, lambda _row, _answers: None, on_progress)
    result = {"benchmark": name, "settings": settings, "extractor": extractor_of(cls), **summarize(benchmark, problems, answers)}
    write_json(out, result)
    return result


def _ask(
    source: Source, problems: Sequence[Problem], benchmark: Benchmark, seed: int, answers: dict[int, Sequence[Answered]],
    keep: Add, on_progress: Progress | None,
) -> None:  # fmt: skip
    """Puts the answers that are missing into `answers`."""
    def add(row: int, samples: Sequence[Answered]) -> None:
        keep(row, samples)
        answers[row] = samples
        if on_progress:
            on_progress(sum(problem.row in answers for problem in problems), len(problems))

    source.answer(problems, benchmark, seed=seed, done=frozenset(answers), add=add)
