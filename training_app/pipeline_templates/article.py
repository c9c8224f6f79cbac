"""The article's pipeline: cold start, reinforcement, rejection sampling, each behind its gate.

Source: the article's training section: 15/70/15 % of the compute, gates 0.75, 0.85 and 0.90.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_core.recipes import PhaseRecipe, article_recipe
from model_core.registry import registered


@registered
class Article:
    """The chain of `model_core.recipes.article_recipe` and the data that it was found on."""

    title: ClassVar[str] = "The article's pipeline"
    description: ClassVar[str] = (
        "Cold start, reinforcement learning, rejection sampling: 15, 70 and 15 % of the compute, gates at 0.75, 0.85 and "
        "0.90 on the lower bound of quality."
    )
    learns_from: ClassVar[str] = "problems"
    budget_device_seconds: ClassVar[float | None] = 2400.0
    """Device-seconds of the whole chain on the tiny preset: a limit with room, not an estimate."""

    def phases(self, *, seed: int) -> list[PhaseRecipe]:
        """The phases in order."""
        return article_recipe(seed=seed)

    def prepare(self) -> dict[str, Any]:
        """A `PrepareConfig` of a dataset that this chain learns from: two right styles of adding numbers."""
        return prepare_sums(self.phases(seed=0))


def prepare_sums(phases: list[PhaseRecipe]) -> dict[str, Any]:
    """A `PrepareConfig` of generated sums, so many that none of `phases` wants more."""
    num_rows = max(recipe.num_rows for recipe in phases)
    return {"source": "generated", "source_config": {"task": "sums", "num_train": num_rows, "num_held_out": 1024}}
