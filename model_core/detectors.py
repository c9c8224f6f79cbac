"""Signs that a policy games its reward, read from the metrics of its steps. Pure functions of numbers; imports without torch.

A detector looks at the series of a run so far and says a sentence with its numbers, or nothing. It accuses nobody: a person
looks at the rollouts then. Sources: Gao et al., “Scaling laws for reward model overoptimization” (arXiv 2210.10760) for a
reward that rises while the truth falls; Yu et al., DAPO (arXiv 2503.14476), section 4, for the series that are watched.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, linear_regression, stdev

from pydantic import Field

from model_core.config.base import StrictModel

Series = Mapping[str, Sequence[float | None]]
"""Metric name of `model_core.events.METRICS` → its value at each step; None where it was not told."""


class DetectorConfig(StrictModel):
    """From when on a sign is told."""

    window: int = Field(8, ge=3, le=1000)
    """Steps that are compared: the last so many with the first so many; nothing is told before there are twice as many."""
    dominance_fraction: float = Field(0.9, gt=0, le=1)
    """Share of the reward's rise that one component may make while another falls."""
    length_factor: float = Field(1.5, gt=1)
    """Growth of the mean length from which on it drifts, when the accuracy of the rollouts does not rise."""
    held_out_drop: float = Field(0.03, gt=0, le=1)
    """Fall of held-out accuracy that counts while the reward rises."""
    min_entropy_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of the first steps' entropy below which it has collapsed while there is still something to learn."""
    max_flat_fraction: float = Field(0.9, gt=0, le=1)
    """Share of groups without a difference in reward from which on a step teaches next to nothing."""


def findings(series: Series, config: DetectorConfig | None = None) -> dict[str, str]:
    """The sentence of each detector that has found something."""
    asked = config or DetectorConfig()
    said = {name: detect(series, asked) for name, detect in DETECTORS.items()}
    return {name: sentence for name, sentence in said.items() if sentence}


class Watch:
    """Looks at a run while it goes on: its first steps and its last ones are kept, and each finding is said once."""

    def __init__(self, config: DetectorConfig | None = None) -> None:
        self._config = config or DetectorConfig()
        self._first: dict[str, list[float]] = {}
        self._last: dict[str, deque[float]] = {}
        self._said: set[str] = set()

    def add(self, values: Mapping[str, float | None]) -> dict[str, str]:
        """Takes in the metrics of a step, or of a measurement, and returns the sentence of each detector with a new finding."""
        self._forget_another_reward(values)
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                first = self._first.setdefault(name, [])
                last = self._last.setdefault(name, deque(maxlen=4 * self._config.window))
                (first if len(first) < self._config.window else last).append(value)
        if "reward/total" not in values:
            return {}
        found = findings({name: [*first, *self._last.get(name, ())] for name, first in self._first.items()}, self._config)
        new = {name: sentence for name, sentence in found.items() if name not in self._said}
        self._said |= new.keys()
        return new

    def stored(self) -> str:
        """What it knows, for a checkpoint."""
        last = {name: list(values) for name, values in self._last.items()}
        return json.dumps({"first": self._first, "last": last, "said": sorted(self._said)})

    def restore(self, stored: str) -> None:
        """Goes on from what `stored` gave: what was said is not said again."""
        known = json.loads(stored)
        self._first, self._said = known["first"], set(known["said"])
        self._last = {name: deque(values, maxlen=4 * self._config.window) for name, values in known["last"].items()}

    def _forget_another_reward(self, values: Mapping[str, float | None]) -> None:
        """A reward that has got another component is another reward: its rise at that step is nobody's doing."""
        before, now = _asked(self._first), _asked(values)
        if before and now and before != now:
            for name in [name for name in self._first if name.startswith("reward/")]:
                del self._first[name]
                self._last.pop(name, None)


def dominance(series: Series, config: DetectorConfig) -> str | None:
    """One component makes nearly all of the reward's rise while another, which was no constant, falls."""
    total = _change(series, "reward/total", config)
    changes = {name: change for name in _components(series) if (change := _change(series, f"reward/{name}/mean", config))}
    if total is None or total[1] <= total[0] or len(changes) < 2:
        return None
    rises = {name: after - before for name, (before, after) in changes.items()}
    best, worst = max(rises, key=rises.__getitem__), min(rises, key=rises.__getitem__)
    positive = sum(rise for rise in rises.values() if rise > 0)
    noise = 2 * _noise(series, f"reward/{worst}/mean", config)
    if positive <= 0 or rises[best] < config.dominance_fraction * positive or rises[worst] >= -max(noise, 0.02):
        return None
    return (
        f"{best} makes {rises[best] / positive:.0%} of the reward's rise ({_arrow(changes[best])}) while {worst} falls "
        f"({_arrow(changes[worst])})."
    )


def length_drift(series: Series, config: DetectorConfig) -> str | None:
    """Completions grow without more of them being right."""
    lengths, accuracy = _change(series, "len/mean", config), _change(series, "accuracy/rollouts", config)
    if lengths is None or lengths[0] <= 0 or lengths[1] < config.length_factor * lengths[0]:
        return None
    if accuracy is not None and accuracy[1] > accuracy[0] + 2 * _noise(series, "accuracy/rollouts", config):
        return None
    return f"Completions grew from {lengths[0]:.0f} to {lengths[1]:.0f} tokens, and no more of them are right."


def proxy_gap(series: Series, config: DetectorConfig) -> str | None:
    """The reward rises on the rollouts while held-out accuracy falls below its best."""
    total = _change(series, "reward/total", config)
    held_out = _known(series, "eval/accuracy")
    if total is None or total[1] <= total[0] + 2 * _noise(series, "reward/total", config) or len(held_out) < 2:
        return None
    best = max(held_out)
    if best - held_out[-1] < config.held_out_drop:
        return None
    return f"The reward rose ({_arrow(total)}) while held-out accuracy fell from {best:.1%} to {held_out[-1]:.1%}."


def entropy_collapse(series: Series, config: DetectorConfig) -> str | None:
    """The policy has become certain although much of what it says is wrong."""
    entropy, accuracy = _change(series, "entropy", config), _change(series, "accuracy/rollouts", config)
    if entropy is None or entropy[0] <= 0 or entropy[1] >= config.min_entropy_fraction * entropy[0]:
        return None
    if accuracy is None or accuracy[1] > 0.9:
        return None
    return f"Entropy fell from {entropy[0]:.3f} to {entropy[1]:.4f} nats a token with only {accuracy[1]:.0%} of the rollouts right."


def no_signal(series: Series, config: DetectorConfig) -> str | None:
    """Nearly all groups have equal rewards although not all of them are right."""
    flat, accuracy = _change(series, "reward/frac_zero_std_groups", config), _change(series, "accuracy/rollouts", config)
    if flat is None or flat[1] < config.max_flat_fraction or (accuracy is not None and accuracy[1] > 0.9):
        return None
    right = f" with {accuracy[1]:.0%} of the rollouts right" if accuracy is not None else ""
    return f"In {flat[1]:.0%} of the groups all rewards are equal{right}: the steps teach next to nothing."


def repetition_growth(series: Series, config: DetectorConfig) -> str | None:
    """The punishment of repetition grows steadily."""
    name = "reward/repetition/mean"
    values = _known(series, name)[-2 * config.window :]
    change = _change(series, name, config)
    if change is None or len(values) < 2 * config.window or change[1] >= change[0] - max(0.02, 2 * _noise(series, name, config)):
        return None
    slope = linear_regression(range(len(values)), values).slope
    return f"Completions repeat themselves more ({_arrow(change)}, {slope:+.4f} a step)." if slope < 0 else None


DETECTORS: dict[str, Callable[[Series, DetectorConfig], str | None]] = {
    "dominance": dominance, "length_drift": length_drift, "proxy_gap": proxy_gap, "entropy_collapse": entropy_collapse,
    "no_signal": no_signal, "repetition_growth": repetition_growth,
}  # fmt: skip


def _known(series: Series, name: str) -> list[float]:
    return [value for value in series.get(name, ()) if value is not None]


def _change(series: Series, name: str, config: DetectorConfig) -> tuple[float, float] | None:
    """Means of the first and of the last `window` steps; None before there are twice as many."""
    values = _known(series, name)
    if len(values) < 2 * config.window:
        return None
    return fmean(values[: config.window]), fmean(values[-config.window :])


def _noise(series: Series, name: str, config: DetectorConfig) -> float:
    """Standard error of the difference of the two means, from how much neighbouring steps differ."""
    values = _known(series, name)
    steps = [later - earlier for earlier, later in pairwise(values)]
    return stdev(steps) / config.window**0.5 if len(steps) > 1 else 0.0


def _asked(names: Iterable[str]) -> set[str]:
    """The components that a step's reward is made of, scored or not."""
    return {name for name in names if name.startswith("reward/") and name.endswith("/unscored")}


def _components(series: Series) -> list[str]:
    return [parts[1] for name in series if len(parts := name.split("/")) == 3 and parts[0] == "reward" and parts[2] == "mean"]


def _arrow(change: tuple[float, float]) -> str:
    return f"{change[0]:.3f} → {change[1]:.3f}"
