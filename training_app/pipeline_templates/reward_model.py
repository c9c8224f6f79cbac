"""A reward model alone, for those who want to see how well it judges before anything is reinforced with it.

Source: Ouyang et al. (arXiv 2203.02155), section 3.5.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_core.recipes import PhaseRecipe, reward_model_recipe
from model_core.registry import registered

PREPARE_PAIRS: dict[str, Any] = {
    "source": "jsonl", "mapping": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
}  # fmt: skip
"""A `PrepareConfig` of an upload with two answers a row."""


@registered
class RewardModelAlone:
    """The one phase of `model_core.recipes.reward_model_recipe`."""

    title: ClassVar[str] = "A reward model alone"
    description: ClassVar[str] = (
        "The trunk of a model that is there learns which of two answers people prefer. It writes nothing; the reward of a later "
        "run can name it."
    )
    learns_from: ClassVar[str] = "pairs"
    budget_device_seconds: ClassVar[float | None] = None

    def phases(self, *, seed: int) -> list[PhaseRecipe]:
        """The one phase."""
        return reward_model_recipe(seed=seed)

    def prepare(self) -> dict[str, Any]:
        """A `PrepareConfig` of pairs."""
        return PREPARE_PAIRS
