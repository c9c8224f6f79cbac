"""The weighted sum of reward components over samples; quality on held-out prompts is the same sum.

A component that is unscored leaves the total unscored: a sum with a hole is not comparable with one without. One that begins
at a later step is no hole: it adds nothing, and no other weight changes, so that of a group all are summed alike. Whatever could
hang is judged in a process of its own (`model_core.rewards._apart`), so that it costs its deadline and nothing else.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from model_core.config import RewardConfig
from model_core.rewards import REWARDS
from model_core.rewards._apart import Apart
from model_core.rewards._types import Sample, Score


@dataclass(frozen=True)
class Scored:
    """What one sample is worth, in total and by component; None is unscored."""

    total: float | None
    components: dict[str, float | None]
    correct: bool | None
    detail: str


class Rubric:
    """The components of a reward profile, made once and used on many samples."""

    def __init__(self, config: RewardConfig) -> None:
        self.weights = dict(config.weights)
        self._from_step = dict(config.from_step)
        self._parts = {name: _Part(name, config.settings.get(name, {})) for name in self.weights}
        judges = [name for name, part in self._parts.items() if part.decides_correct]
        self._judge = judges[0] if judges else ""
        self._unweighted = None if judges else _Part("solution_accuracy", {})
        """What says whether an answer is right, where that is no part of the sum."""

    def at(self, step: int) -> Rubric:
        """The reward of this step of reinforcement, counted from 1: without the components that begin later."""
        late = {name for name, first in self._from_step.items() if step < first and name in self._parts}
        if not late:
            return self
        found = copy.copy(self)
        found._parts = {name: part for name, part in self._parts.items() if name not in late}
        if self._judge in late:
            found._unweighted = self._parts[self._judge]
        return found

    def score(self, samples: Sequence[Sample]) -> list[Scored]:
        """Scores each sample; the order is kept."""
        columns = {name: part.score(samples) for name, part in self._parts.items()}
        judged = columns[self._judge] if self._unweighted is None else self._unweighted.score(samples)
        return [
            self._scored({name: column[place] for name, column in columns.items()}, judged[place])
            for place in range(len(samples))
        ]

    def close(self) -> None:
        """Ends the processes of components that were judged apart."""
        for part in (*self._parts.values(), self._unweighted):
            if part is not None:
                part.close()

    def _scored(self, scores: dict[str, Score], judged: Score) -> Scored:
        components = {name: score.value for name, score in scores.items()}
        known = [self.weights[name] * value for name, value in components.items() if value is not None]
        total = sum(known) if len(known) == len(components) else None
        correct = None if judged.value is None else judged.value >= 1.0
        detail = "; ".join(f"{name}: {score.detail}" for name, score in scores.items())
        return Scored(total, components, correct, detail)


class _Part:
    """One component and how it is asked: here, for all samples at once where it can, in several threads where it waits for
    processes of its own, or apart."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        cls = REWARDS.get(name)
        config = cls.Config.parse(settings, prefix=f"reward.settings.{name}")
        self._reward = cls(config)
        self._bounds: tuple[float, float] = cls.bounds
        self._waits = bool(getattr(cls, "waits", False))
        self._score_many: Callable[[Sequence[Sample]], list[Score]] | None = getattr(self._reward, "score_many", None)
        self._may_hang = getattr(self._reward, "may_hang", None)
        self._apart = Apart(cls, config, deadline_seconds=config.deadline_seconds) if self._may_hang else None
        self.decides_correct = bool(getattr(cls, "decides_correct", False))

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        """A score for each sample; one outside the component's bounds, or none at all, is unscored."""
        away = [place for place, sample in enumerate(samples) if self._may_hang(sample)] if self._may_hang else []
        if not away or self._apart is None:
            return [self._within(score) for score in self._asked(samples)]
        there = dict(zip(away, self._apart.score([samples[place] for place in away]), strict=True))
        here = iter(self._asked([sample for place, sample in enumerate(samples) if place not in there]))
        return [self._within(there[place] if place in there else next(here)) for place in range(len(samples))]

    def close(self) -> None:
        if self._apart is not None:
            self._apart.close()

    def _asked(self, samples: Sequence[Sample]) -> Iterable[Score]:
        if self._score_many is not None:
            return self._score_many(samples)
        if not self._waits or len(samples) < 2:
            return map(self._reward, samples)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(self._reward, samples))

    def _within(self, score: Score) -> Score:
        if score.value is None or self._bounds[0] <= score.value <= self._bounds[1]:
            return score
        return Score.unscored(f"{score.value} is outside the bounds {self._bounds}: {score.detail}")
