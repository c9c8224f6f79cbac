"""Reinforcement with preference: a reward model learns from pairs, and the model that is there is reinforced by its judgement.

Source: Ouyang et al. (arXiv 2203.02155), section 3.5; DeepSeek-R1 (arXiv 2501.12948), section 2.3.4.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_core.recipes import PhaseRecipe, preference_recipe
from model_core.registry import registered
from training_app.pipeline_templates.reward_model import PREPARE_PAIRS


@registered
class Preference:
    """The chain of `model_core.recipes.preference_recipe`: the second phase names the reward model of the first."""

    title: ClassVar[str] = "Reinforcement with preference"
    description: ClassVar[str] = (
        "A reward model learns from pairs which answer people prefer; then the model that is there is reinforced by what the "
        "reward model of this very launch says of its answers."
    )
    learns_from: ClassVar[str] = "pairs"
    budget_device_seconds: ClassVar[float | None] = None

    def phases(self, *, seed: int) -> list[PhaseRecipe]:
        """The two phases in order."""
        return preference_recipe(seed=seed)

    def prepare(self) -> dict[str, Any]:
        """A `PrepareConfig` of pairs."""
        return PREPARE_PAIRS
