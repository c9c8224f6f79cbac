"""What the run pages say in words and numbers: the stats strip, progress, titles and colours of metrics.

Pure functions of a run's row; no query, no request. Numbers are formatted here so that header, list and cards agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_core.events import METRICS
from model_core.gates import Judged, judge
from r1platform.templatetags.r1 import duration, grouped, percent
from training_app.budgets import Used, uses_of
from training_app.gates import gate_of
from training_app.models import PhaseRun
from training_app.states import GateVerdict, RunState

NBSP = "\u00a0"
STOPPING_WORDS = "It writes a checkpoint, then frees its device."
COMPONENT_COLOURS = {
    "logical_consistency": "#0072b2",
    "solution_accuracy": "#009e73",
    "reasoning_clarity": "#e69f00",
    "efficiency": "#cc79a7",
    "format": "#56b4e9",
    "": "#0072b2",
}
LIVE = frozenset({RunState.STARTING, RunState.RUNNING, RunState.STOPPING})
MOVING = LIVE | {RunState.WAITING, RunState.QUEUED}
UNDECIDED = "not decided yet"
UNIT_WORDS = {"device_seconds": "device time", "wall_seconds": "time", "dollars": "dollars", "tokens": "tokens"}
TITLES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "entropy": "Entropy",
    "kl": "KL to the reference",
    "pg_loss": "Policy loss",
    "clip/low": "Clipped from below",
    "clip/high": "Clipped from above",
    "reward/total": "Reward",
    "reward/std": "Spread of rewards",
    "reward/frac_zero_std_groups": "Groups with equal rewards",
    "adv/mean": "Mean advantage",
    "adv/std": "Spread of advantages",
    "len/mean": "Answer length",
    "len/max": "Longest answer",
    "truncated_ratio": "Cut at the limit",
    "train_rollout_logprob_diff/mean": "Mean difference",
    "train_rollout_logprob_diff/max": "Largest difference",
    "accuracy/rollouts": "Rollouts correct",
    "moe/max_vio": "Largest expert violation",
    "moe/load_cv": "Spread of expert loads",
    "moe/bias_norm": "Routing bias",
    "perf/tok_s": "Throughput",
    "perf/step_s": "Step time",
    "perf/rollout_s": "Sampling time",
    "perf/train_s": "Update time",
    "perf/reward_s": "Scoring time",
    "eval/accuracy": "Held-out accuracy",
    "eval/quality": "Held-out quality",
    "eval/loss": "Held-out loss",
}


@dataclass(frozen=True)
class Stat:
    """One cell of the strip: label above, value, a second line; `change` is the coloured difference."""

    label: str
    value: str
    detail: str = ""
    change: str = ""
    tone: str = ""
    fraction: float | None = None
    """Fills a thin meter below when given, 0 to 1."""


def metric_words(names: list[str]) -> dict[str, dict[str, str]]:
    """Title, unit and meaning of each metric, for the charts; also of all that may still come."""
    return {name: {"title": title_of(name), **_unit_and_meaning(name)} for name in {*METRICS, *names}}


def title_of(name: str) -> str:
    """A metric's name in words: `reward/efficiency/mean` is "Efficiency"."""
    if name in TITLES:
        return TITLES[name]
    parts = name.split("/")
    if parts[0] in {"reward", "eval"} and len(parts) > 1:
        words = parts[1].replace("_", " ").capitalize()
        kind = parts[2] if len(parts) > 2 else "mean"
        return words if kind == "mean" else f"{words}, {kind}"
    return name.replace("_", " ").replace("/", ", ").capitalize()


def _unit_and_meaning(name: str) -> dict[str, str]:
    unit, meaning = METRICS.get(name, ("", ""))
    if name.endswith("/unscored"):
        unit, meaning = "rollouts", "Rollouts for which this component could not be computed"
    return {"unit": unit, "meaning": meaning}


def measured(run: PhaseRun) -> dict[str, Any]:
    """The newest held-out measurement: of the result when there is one, else of the last evaluation."""
    if run.result and run.result.get("accuracy") is not None:
        return dict(run.result)
    summary = run.summary or {}
    found = summary.get("evaluation")
    if isinstance(found, dict):
        return found
    return {key.removeprefix("eval/"): value for key, value in summary.items() if key.startswith("eval/")}


def stats(run: PhaseRun) -> list[Stat]:
    """The strip under the title."""
    return [_accuracy(run), _quality(run), _budget(run), _throughput(run), _balance(run)]


def _accuracy(run: PhaseRun) -> Stat:
    found = measured(run)
    value = found.get("accuracy")
    if value is None:
        return Stat("Held-out accuracy", "–", _unmeasured(run))
    before = found.get("accuracy_before", (run.summary or {}).get("accuracy_before"))
    change = points(value - before) if before is not None else ""
    low, high, count = found.get("accuracy_low"), found.get("accuracy_high"), found.get("num_problems")
    interval = f"±{(high - low) * 50:.1f}" if low is not None and high is not None else ""
    problems = f"{grouped(count)} problems" if count else ""
    detail = ", ".join(filter(None, [problems, interval]))
    return Stat(
        "Held-out accuracy", percent(value), detail, change, _tone(value - before) if before is not None else ""
    )


def _quality(run: PhaseRun) -> Stat:
    """Quality, or in its place what the gate compares."""
    found, judged = measured(run), judged_of(run)
    low = found.get("quality_low", found.get("quality"))
    if judged is None:
        shown = "–" if low is None else f"{low:.3f}"
        return Stat("Quality, lower bound", shown, _unmeasured(run) if low is None else _mean_quality(found))
    if judged.compared is None:
        return Stat(f"{judged.words[:1].upper()}{judged.words[1:]}", "–", gate_words(run))
    tone = "up" if judged.passed else "down"
    return Stat(f"{judged.words[:1].upper()}{judged.words[1:]}", f"{judged.compared:.3f}", gate_words(run), tone=tone)


def _mean_quality(found: dict[str, Any]) -> str:
    return f"mean {found['quality']:.3f}" if found.get("quality") is not None else ""


def gate_words(run: PhaseRun) -> str:
    """The gate as a short sentence: "gate 0.85, passed"."""
    judged = judged_of(run)
    if judged is None:
        return ""
    said = gate_said(run)
    if said == UNDECIDED and judged.passed is not None:
        said = "would pass" if judged.passed else "would hold"
    at_most = "at most " if judged.direction == "at_most" else ""
    return f"gate {at_most}{judged.threshold:g}, {said}"


def judged_of(run: PhaseRun) -> Judged | None:
    """What the gate was decided on, else the newest measurement as it would be decided on; None without a gate."""
    gate = gate_of(run)
    if gate is None:
        return None
    return Judged(**run.gate_measured) if run.gate_measured else judge(gate, measured(run))


def basis_words(judged: Judged) -> str:
    """On what a gate's number rests: "mean 0.850 ± 0.012 (standard error), 95 % interval 0.826 to 0.874, 512 problems"."""
    parts = []
    if judged.value is not None:
        error = f" ± {judged.stderr:.3f} (standard error)" if judged.stderr is not None else ""
        parts.append(f"mean {judged.value:.3f}{error}")
    if judged.low is not None and judged.high is not None:
        parts.append(f"95{NBSP}% interval {judged.low:.3f} to {judged.high:.3f}")
    if judged.num:
        parts.append(f"{grouped(judged.num)} problems")
    return ", ".join(parts)


def gate_said(run: PhaseRun) -> str:
    """What the gate of a run has decided; what has ended before it is not decided any more."""
    match run.gate_verdict:
        case GateVerdict.PASSED:
            return "passed"
        case GateVerdict.HELD:
            return "held"
        case GateVerdict.OVERRIDDEN:
            return "held, overridden"
        case GateVerdict.ROLLED_BACK:
            return "held, rolled back"
        case _:
            return UNDECIDED if run.state in MOVING or run.state == RunState.PAUSED else "not decided"


def time_left(seconds: float) -> str:
    """An estimate in words: exact to the second only where it can be."""
    return "a few seconds" if seconds < 10 else f"about {duration(seconds)}"


def _budget(run: PhaseRun) -> Stat:
    uses = uses_of(run)
    left = (run.progress or {}).get("remaining_seconds")
    ends = f"ends in {time_left(left)}" if left and run.state == RunState.RUNNING else ""
    if not uses:
        return Stat("Device time", duration(run.device_seconds) if run.device_seconds else "–", ends or "no budget set")
    nearest = uses[0]
    if run.state == RunState.RUNNING and (nearest.forecast or 0.0) > 1:
        unit = f" in {UNIT_WORDS[nearest.unit]}" if len(uses) > 1 else ""
        ends = f"the budget{unit} ends it before its last step"
    unit = f" ({UNIT_WORDS[nearest.unit]})" if len(uses) > 1 or nearest.unit != "device_seconds" else ""
    return Stat(f"Budget used{unit}", f"{nearest.fraction * 100:.0f} %", ends or used_words(nearest), fraction=nearest.fraction)


def used_words(use: Used) -> str:
    """What is used of a limit: "3 min of 10 min", "$0.20 of $5.00"."""
    return f"{_amount(use.unit, use.used)} of {_amount(use.unit, use.limit)}"


def forecast_words(use: Used) -> str:
    """What its last step would bring a limit to, at the present rate; empty where nobody knows."""
    if use.forecast is None:
        return ""
    ends = ": it ends first" if use.forecast > 1 else ""
    return f"{use.forecast * 100:.0f}{NBSP}% after the last step{ends}"


def _amount(unit: str, value: float) -> str:
    if unit == "dollars":
        return f"${value:,.2f}"
    return f"{grouped(round(value))} tokens" if unit == "tokens" else duration(value)


def _throughput(run: PhaseRun) -> Stat:
    summary = run.summary or {}
    speed = summary.get("perf/tok_s")
    if not isinstance(speed, int | float):
        return Stat("Throughput", "–", _tokens(run) or _unmeasured(run))
    step, rollout, train = (summary.get(f"perf/{name}_s") for name in ("step", "rollout", "train"))
    detail = _tokens(run)
    if step and rollout is not None and train is not None:
        detail = f"sampling {rollout / step * 100:.0f}, update {train / step * 100:.0f}{NBSP}%"
    return Stat("Throughput", f"{grouped(round(speed))} tok/s", detail)


def _tokens(run: PhaseRun) -> str:
    so_far = " so far" if run.state in MOVING else ""
    return f"{grouped(run.num_tokens)} tokens{so_far}" if run.num_tokens else ""


def _balance(run: PhaseRun) -> Stat:
    worst = (run.summary or {}).get("moe/max_vio")
    if not isinstance(worst, int | float):
        return Stat("Expert balance", "–", _unmeasured(run))
    return Stat("Expert balance", f"{1 + worst:.2f}×", "busiest over the mean")


def progress_words(run: PhaseRun) -> str:
    """Where the run is: "step 17 of 24, sampling, 38 s left", or why it waits."""
    if run.state in {RunState.QUEUED, RunState.WAITING}:
        return run.waiting_reason or run.state_reason
    if run.state == RunState.STOPPING:
        return STOPPING_WORDS
    if run.state not in LIVE:
        return run.state_reason
    progress = run.progress or {}
    parts = []
    if progress.get("total"):
        parts.append(f"step {grouped(progress.get('step', 0))} of {grouped(progress['total'])}")
    if progress.get("stage"):
        parts.append(str(progress["stage"]))
    if progress.get("remaining_seconds"):
        parts.append(f"{time_left(progress['remaining_seconds'])} left")
    return ", ".join(parts) or run.state_reason


def progress_fraction(run: PhaseRun) -> float | None:
    """How far a run is, 0 to 1; None where nothing is known."""
    if run.state == RunState.SUCCEEDED:
        return 1.0
    progress = run.progress or {}
    if isinstance(progress.get("fraction"), int | float):
        return min(max(float(progress["fraction"]), 0.0), 1.0)
    return min(progress.get("step", 0) / progress["total"], 1.0) if progress.get("total") else None


def points(difference: float) -> str:
    """A difference of two shares in percentage points with its sign."""
    return f"{'−' if difference < 0 else '+'}{abs(difference) * 100:.1f}"


def _unmeasured(run: PhaseRun) -> str:
    return "not measured yet" if run.state in MOVING else "not measured"


def _tone(difference: float) -> str:
    return "up" if difference > 0 else "down" if difference < 0 else ""
