"""What others have said that training cost: the figures of the article and of the papers, each with its source.

The dollars of the papers are reckoned from their device-hours and price, so that a table cannot say what its parts do not add up
to.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.planner.cost import price_of_hours

ARTICLE = "“How DeepSeek-R1 Was Built”, as the article states"
V3 = "DeepSeek-V3, arXiv 2412.19437, table 1"
R1 = "DeepSeek-R1, arXiv 2501.12948 v2, supplementary"
PRICE = 2.0
"""Dollars of an H800 GPU-hour that both papers reckon with."""


@dataclass(frozen=True)
class Stage:
    """One line of a paper's table. `phases` are those of ours that do the same."""

    name: str
    device_hours: float
    source: str
    phases: tuple[str, ...] = ()

    @property
    def dollars(self) -> float:
        return price_of_hours(self.device_hours, PRICE)


V3_STAGES = (
    Stage("Pre-training", 2_664_000, V3),
    Stage("Context extension", 119_000, V3),
    Stage("Post-training", 5_000, V3),
)
R1_STAGES = (
    Stage("R1-Zero: reinforcement on the base model", 101_000, R1),
    Stage("Making the supervised data", 5_000, R1, ("rejection_sampling", "distillation", "on_policy_distillation")),
    Stage("R1: cold start and reinforcement", 41_000, R1, ("cold_start", "reinforcement", "reward_model")),
)
ARTICLE_SHARES = {"cold_start": 0.15, "reinforcement": 0.70, "rejection_sampling": 0.15}
"""The article's shares of the compute."""
ARTICLE_ROWS = (
    ("Training cost", "about $5.58M", "over $100M"),
    ("Active parameters", "37B", "1.8T"),
    ("Hardware", "consumer GPUs", "high-end clusters"),
)
"""(what, DeepSeek-R1, the other model) as the article's table has it."""
