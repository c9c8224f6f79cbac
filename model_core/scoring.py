"""The weighted sum of reward components over samples; quality on held-out prompts is the same sum.

A component that is unscored leaves the total unscored: a sum with a hole is not comparable with one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_core.config import RewardConfig
from model_core.rewards import REWARDS
from model_core.rewards._types import Reward, Sample
from model_core.rewards.solution_accuracy import SolutionAccuracy


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
        self._rewards: dict[str, Reward] = {name: _component(name, config.settings.get(name, {})) for name in self.weights}
        self._accuracy = SolutionAccuracy()

    def score(self, samples: Sequence[Sample]) -> list[Scored]:
        """Scores each sample; the order is kept."""
        return [self._score_one(sample) for sample in samples]

    def _score_one(self, sample: Sample) -> Scored:
        scores = {name: reward(sample) for name, reward in self._rewards.items()}
        components = {name: score.value for name, score in scores.items()}
        known = [self.weights[name] * value for name, value in components.items() if value is not None]
        total = sum(known) if len(known) == len(components) else None
        accuracy = scores["solution_accuracy"] if "solution_accuracy" in scores else self._accuracy(sample)
        correct = None if accuracy.value is None else accuracy.value >= 1.0
        detail = "; ".join(f"{name}: {score.detail}" for name, score in scores.items())
        return Scored(total, components, correct, detail)


def _component(name: str, settings: dict[str, Any]) -> Reward:
    cls = REWARDS.get(name)
    made: Reward = cls(cls.Config.parse(settings, prefix=f"reward.settings.{name}"))
    return made
