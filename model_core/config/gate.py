"""The gate of a run: which number is compared with which threshold, and whether a phase may end early when it is safely passed.

The comparison itself is in `model_core.gates`; which file a benchmark reads is in `RunPaths`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import ConfigError

if TYPE_CHECKING:
    from model_core.config.run import RunConfig

HELD_OUT = ("quality", "accuracy", "loss", "length", "truncated")
"""What every measurement on held-out problems tells besides the reward components."""
LOSS = "loss"
"""The one of them that is asked of demonstrations, and the better the lower it is."""
SHARES = frozenset({"accuracy", "truncated"})


class GateConfig(StrictModel):
    """What a run has to reach; measured after its last step."""

    metric: str = ""
    """`quality`, `accuracy`, `loss` (of the demonstrations, nats a token), `length` (tokens) or `truncated` (share of answers cut
    off) on held-out problems, a reward component, or a benchmark's accuracy; with `_low` or `_high` the end of its 95 % interval.
    Empty: no gate."""
    threshold: float | None = None
    """The value that is compared; the value itself passes."""
    direction: Literal["at_least", "at_most"] = "at_least"
    """Whether the metric has to be at least or at most the threshold."""
    stop_early: int = Field(0, ge=0, le=1000)
    """Ends the phase once so many held-out measurements in a row, while training, have the cautious end of their 95 % interval on
    the right side of the threshold; the budget that is left is not used. The gate is still decided by the measurement at the
    end. 0: never."""

    @property
    def name(self) -> str:
        """The metric without its bound."""
        return split(self.metric)[0]

    @property
    def bound(self) -> str:
        """"low", "high", or "" for the mean."""
        return split(self.metric)[1]


class BenchmarkConfig(StrictModel):
    """How the benchmark is asked that the gate names. What is empty is as the benchmark has pinned it."""

    num_problems: int = Field(0, ge=0)
    """First rows of the benchmark's file that are asked; 0: all."""
    num_samples: int | None = Field(None, ge=1, le=1024)
    """Completions of each problem; the accuracy is the mean over them."""
    temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of sampling; 0 answers greedily."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest completion, in tokens."""


def split(metric: str) -> tuple[str, str]:
    """Name and bound of a gate's metric: `quality_low` is ("quality", "low")."""
    for bound in ("low", "high"):
        if metric.endswith(f"_{bound}"):
            return metric.removesuffix(f"_{bound}"), bound
    return metric, ""


def benchmark_of(config: RunConfig) -> str:
    """The benchmark that the gate names; empty when it names none."""
    from model_core.evaluation.benchmarks import BENCHMARKS

    name = "" if _measures_of_phase(config) else config.gate.name
    return name if name in BENCHMARKS.names() and name not in names_of(config) else ""


def names_of(config: RunConfig) -> list[str]:
    """What this run measures on held-out problems."""
    if own := _measures_of_phase(config):
        return list(own)
    return [*HELD_OUT, *(name for name in config.reward.weights if name not in HELD_OUT)]


def _measures_of_phase(config: RunConfig) -> tuple[str, ...]:
    """What a phase measures whose model answers nothing; empty for the others, which are asked problems."""
    from model_core.phases import PHASES

    own: tuple[str, ...] = getattr(PHASES.get(config.phase), "measures", ())
    return own


def range_of(config: RunConfig, name: str) -> tuple[float, float]:
    """Least and largest value that a metric can have."""
    from model_core.rewards import REWARDS

    if _measures_of_phase(config):
        return 0.0, 1.0
    if name == "length":
        return 0.0, float(config.held_out.max_new_tokens)
    if name == LOSS:
        return 0.0, math.inf
    if name == "quality":
        ends = [(weight * low, weight * high) for part, weight in config.reward.weights.items()
                for low, high in (REWARDS.get(part).bounds,)]
        return sum(min(pair) for pair in ends), sum(max(pair) for pair in ends)
    if name in config.reward.weights and name not in SHARES:
        low, high = REWARDS.get(name).bounds
        return float(low), float(high)
    return 0.0, 1.0


def check_gate(config: RunConfig, *, prefix: str = "") -> None:
    """Raises ConfigError at the field of the gate that cannot be decided as it stands."""
    for field, message in _wrong(config):
        raise ConfigError(message, field=f"{prefix}{field}")


def _wrong(config: RunConfig) -> list[tuple[str, str]]:
    gate, benchmark = config.gate, benchmark_of(config)
    if not gate.metric:
        if gate.stop_early:
            return [("gate.stop_early", "Ending early needs a gate that can be passed; name its metric, or set stop_early 0.")]
        return []
    if not benchmark and gate.name not in names_of(config):
        return [("gate.metric", _unknown(config))]
    if gate.threshold is None:
        return [("gate.threshold", "A gate needs a threshold, such as 0.75.")]
    low, high = range_of(config, gate.name)
    if not math.isfinite(gate.threshold) or not low <= gate.threshold <= high:
        within = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        return [("gate.threshold", f"{gate.name} is {within}, so a threshold is too; {gate.threshold:g} is not.")]
    if gate.name == LOSS and gate.direction == "at_least":
        return [("gate.direction", "The lower a loss, the better: at least would pass the worse model. Set at_most.")]
    if gate.bound and gate.bound == ("high" if gate.direction == "at_least" else "low"):
        cautious = "low" if gate.direction == "at_least" else "high"
        return [("gate.direction", (
            f"{gate.direction.replace('_', ' ')} with the {gate.bound} end of the interval would pass what luck may have given. "
            f"Compare {gate.name}_{cautious}, or the mean {gate.name}."))]
    if not gate.stop_early:
        return []
    if benchmark:
        return [("gate.stop_early", f"{benchmark} is asked after the last step only; set stop_early 0.")]
    held_out, saves = config.held_out, config.checkpoint
    if not held_out.num_problems_during or not (held_out.every_steps or (saves.every_steps and saves.keep_best)):
        return [("gate.stop_early", "Ending early needs measurements while training; set held_out.every_steps and "
                                    "held_out.num_problems_during, or set stop_early 0.")]
    return []


def _unknown(config: RunConfig) -> str:
    from model_core.evaluation.benchmarks import BENCHMARKS

    benchmarks = "" if _measures_of_phase(config) else f", or a benchmark: {', '.join(BENCHMARKS.names())}"
    names = ", ".join(names_of(config))
    return (f"There is no metric “{config.gate.metric}” in {config.phase}. A gate compares {names}{benchmarks}; each also with "
            "_low or _high.")
