"""Fine-tuning: a model that is there learns good answers, such as those that people accepted in the playground.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.1, where such demonstrations are the cold start of a base model.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_core.recipes import PhaseRecipe, fine_tuning_recipe
from model_core.registry import registered


@registered
class FineTuning:
    """The one phase of `model_core.recipes.fine_tuning_recipe`."""

    title: ClassVar[str] = "Fine-tuning on good answers"
    description: ClassVar[str] = "A model that is there learns the answers of the dataset by a few gentle supervised steps."
    learns_from: ClassVar[str] = "answers"
    budget_device_seconds: ClassVar[float | None] = None

    def phases(self, *, seed: int) -> list[PhaseRecipe]:
        """The one phase."""
        return fine_tuning_recipe(seed=seed)

    def prepare(self) -> dict[str, Any]:
        """A `PrepareConfig` of chats, whose last answers are learnt."""
        return {"source": "chats"}
