"""The benchmark that a run's gate names, asked of the model as it is after the last step.

Its file is read before the first step, so that a wrong one costs no training. Each rank answers its share of the problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from model_core.config import RunConfig, RunPaths
from model_core.config.gate import benchmark_of
from model_core.errors import DataError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.problems import read_problems
from model_core.evaluation.results import Answered, summarize
from model_core.evaluation.sources import Sampled
from model_core.rollout import Sampler
from model_core.training.world import World

_TOLD = ("accuracy", "stderr", "low", "high", "num_problems", "num_samples", "unscored", "no_answer", "truncated")


class GateBenchmark:
    """A benchmark with its problems."""

    def __init__(self, name: str, config: RunConfig, paths: RunPaths) -> None:
        """Raises DataError when there is no file or it is not this benchmark's."""
        if paths.benchmark is None:
            raise DataError(f"The gate compares {name}, and no file of it is named.", field="paths.benchmark")
        given = {key: value for key, value in config.benchmark.model_dump().items() if key != "num_problems" and value is not None}
        cls = BENCHMARKS.get(name, field="gate.metric")
        self.name, self._seed = name, config.seed
        self._benchmark = cls(cls.Config.parse(given, prefix="benchmark"))
        self._problems = read_problems(self._benchmark, paths.benchmark, limit=config.benchmark.num_problems or None)

    @classmethod
    def of(cls, config: RunConfig, paths: RunPaths) -> GateBenchmark | None:
        """None when the gate names no benchmark."""
        name = benchmark_of(config)
        return cls(name, config, paths) if name else None

    def ask(self, sampler: Sampler, tokenizer: PreTrainedTokenizerFast, *, context: int, world: World) -> dict[str, Any]:
        """The payload of a `benchmark` event without its step; all ranks must call it."""
        own: dict[int, Sequence[Answered]] = {}
        Sampled(sampler, tokenizer, context).answer(
            self._problems[world.rank :: world.size], self._benchmark, seed=self._seed, done=frozenset(), add=own.__setitem__)
        answers = {row: samples for share in world.gather(own) for row, samples in share.items()}
        result = summarize(self._benchmark, self._problems, answers)
        return {"name": self.name, **{key: result[key] for key in _TOLD}}


def measure_of(told: dict[str, Any]) -> dict[str, Any]:
    """The accuracy of a `benchmark` event in the form of `measures`."""
    return {"value": told["accuracy"], "stderr": told["stderr"], "low": told["low"], "high": told["high"],
            "num": told["num_problems"]}
