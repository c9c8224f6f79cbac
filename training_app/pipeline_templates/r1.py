"""The pipeline of the DeepSeek-R1 paper: cold start, reasoning RL, rejection sampling from new weights, RL, distillation.

Source: DeepSeek-R1 (arXiv 2501.12948), sections 2.3 and 2.4; the shares of the compute and the gates are ours.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_core.recipes import PhaseRecipe, r1_recipe
from model_core.registry import registered
from training_app.pipeline_templates.article import prepare_sums


@registered
class R1:
    """The chain of `model_core.recipes.r1_recipe` and the data that it was found on."""

    title: ClassVar[str] = "DeepSeek-R1, as in the paper"
    description: ClassVar[str] = (
        "Cold start, reinforcement learning on accuracy, language and format, rejection sampling into new weights, "
        "reinforcement learning once more, and distillation into a dense model; gates on the lower bound of accuracy."
    )
    learns_from: ClassVar[str] = "problems"
    budget_device_seconds: ClassVar[float | None] = 3600.0
    """Device-seconds of the whole chain on the tiny preset: a limit with room, not an estimate."""

    def phases(self, *, seed: int) -> list[PhaseRecipe]:
        """The phases in order."""
        return r1_recipe(seed=seed)

    def prepare(self) -> dict[str, Any]:
        """A `PrepareConfig` of a dataset that this chain learns from."""
        return prepare_sums(self.phases(seed=0))
