"""Chains of phases that are known to work, as data: what a pipeline template is made from. Imports without torch.

`docs/experiments.md` tells how the numbers were found and what they gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PhaseRecipe:
    """One phase of a chain. `starts_from` and `rollouts_from` name earlier phases of the chain."""

    name: str
    phase: str
    config: dict[str, Any]
    budget_fraction: float
    gate_threshold: float | None
    starts_from: str | None = None
    rollouts_from: str | None = None
    gate_metric: str = "quality_low"
    num_rows: int = 2000
    """Training rows that the phase wants at least; fewer were seen not to generalise."""
    summary: str = ""
    """What the phase does, in a sentence for people."""


def article_recipe(*, seed: int = 0) -> list[PhaseRecipe]:
    """The article's pipeline on the tiny preset: cold start, reinforcement, rejection sampling.

    Compute 15/70/15 %, gates 0.75/0.85/0.90 on the lower bound of the quality, both as the article states.
    Rejection sampling trains on from the cold start, with chains that the reinforced model wrote.
    """
    return [
        PhaseRecipe(
            "cold-start", "cold_start", _config("cold_start", seed), budget_fraction=0.15, gate_threshold=0.75,
            summary="Learns the form of reasoning from demonstrations.",
        ),
        PhaseRecipe(
            "reinforcement", "reinforcement", _config("reinforcement", seed), budget_fraction=0.70, gate_threshold=0.85,
            starts_from="cold-start", summary="Reinforces what its own results reward.",
        ),
        PhaseRecipe(
            "rejection-sampling", "rejection_sampling", _config("rejection_sampling", seed), budget_fraction=0.15,
            gate_threshold=0.90, starts_from="cold-start", rollouts_from="reinforcement",
            summary="Learns from the flawless answers of the reinforced model.",
        ),
    ]


def _config(phase: str, seed: int) -> dict[str, Any]:
    """A `RunConfig` with the phase's own defaults, which are this recipe's numbers."""
    return {"phase": phase, "seed": seed}
