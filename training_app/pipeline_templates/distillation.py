"""Distillation: a teacher is trained, and a small dense student learns from its answers.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.4; shares and gates are ours.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_core.recipes import PhaseRecipe, distillation_recipe
from model_core.registry import registered
from training_app.pipeline_templates.article import prepare_sums


@registered
class Distillation:
    """The chain of `model_core.recipes.distillation_recipe` and the data that it learns from."""

    title: ClassVar[str] = "Distillation into a small dense model"
    description: ClassVar[str] = (
        "A teacher by cold start and reinforcement learning, whose flawless answers rejection sampling keeps; a dense student of "
        "the Qwen2 class that learns from them; gates on the lower bound of accuracy."
    )
    learns_from: ClassVar[str] = "problems"
    budget_device_seconds: ClassVar[float | None] = 3600.0
    """Device-seconds of the whole chain on the tiny preset: a limit with room, not an estimate."""

    def phases(self, *, seed: int) -> list[PhaseRecipe]:
        """The phases in order."""
        return distillation_recipe(seed=seed)

    def prepare(self) -> dict[str, Any]:
        """A `PrepareConfig` of a dataset that this chain learns from."""
        return prepare_sums(self.phases(seed=0))
