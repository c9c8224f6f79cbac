"""Chains of phases that are known to work, as data: what a pipeline template is made from. Imports without torch.

`docs/experiments.md` tells how the numbers of the chains from new weights were found and what they gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from model_core.config.run import PROFILES


@dataclass(frozen=True)
class PhaseRecipe:
    """One phase of a chain. `starts_from` and `rollouts_from` name earlier phases of the chain; `goes_on` starts from the model
    that the whole chain goes on from."""

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
    goes_on: bool = False


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


def r1_recipe(*, seed: int = 0, reward_model: str | None = None) -> list[PhaseRecipe]:
    """The paper's order on the tiny preset: cold start, reasoning RL, rejection sampling from new weights, RL once more, and
    distillation of what rejection sampling kept into a dense model of the Qwen2 class.

    The reward is R1's (accuracy, one language, format). The paper has no gates; ours compare the lower bound of accuracy.
    With `reward_model`, a checkpoint of that phase, the second RL adds its preference in the last quarter of the steps: the paper
    does so in the last 400 of 1,700, because longer the policy learns to please the reward model.
    Source: DeepSeek-R1 (arXiv 2501.12948), sections 2.3 and 2.4. Where the paper has a pretrained base, ours has new weights.
    """
    last: dict[str, Any] | str = "r1"
    if reward_model is not None:
        settings = {"preference": {"checkpoint": reward_model}}
        last = {"weights": {**PROFILES["r1"], "preference": 1.0}, "settings": settings, "from_step": {"preference": 7}}
    supervised = {"steps": 420, "muon_lr": 0.02, "adamw_lr": 3e-3, "final_lr_fraction": 0.02, "num_chains": 2000}
    return [
        PhaseRecipe(
            "cold-start", "cold_start", _config("cold_start", seed, reward="r1"), budget_fraction=0.15, gate_threshold=0.50,
            gate_metric="accuracy_low", summary="Learns the form of reasoning from demonstrations.",
        ),
        PhaseRecipe(
            "reasoning", "reinforcement", _config("reinforcement", seed, reward="r1"), budget_fraction=0.40, gate_threshold=0.85,
            gate_metric="accuracy_low", starts_from="cold-start", summary="Reinforces right answers in the asked form.",
        ),
        PhaseRecipe(
            "rejection-sampling", "rejection_sampling", _config("rejection_sampling", seed, supervised, reward="r1"),
            budget_fraction=0.25, gate_threshold=0.90, gate_metric="accuracy_low", rollouts_from="reasoning",
            summary="Trains new weights on the flawless answers of the reinforced model.",
        ),
        PhaseRecipe(
            "all-scenarios", "reinforcement",
            _config("reinforcement", seed, {"steps": 8, "adamw_lr": 1e-4, "temperature": 0.7}, reward=last),
            budget_fraction=0.10, gate_threshold=0.90, gate_metric="accuracy_low", starts_from="rejection-sampling",
            summary="Reinforces once more, at the lower temperature of the paper's second stage.",
        ),
        PhaseRecipe(
            "distillation", "distillation", _config("distillation", seed, reward="r1"), budget_fraction=0.10,
            gate_threshold=0.90, gate_metric="accuracy_low", rollouts_from="rejection-sampling",
            summary="Teaches a small dense model what rejection sampling kept.",
        ),
    ]


def distillation_recipe(*, seed: int = 0) -> list[PhaseRecipe]:
    """A teacher and its student on the tiny preset: the teacher is reinforced, and a small dense model learns from its flawless
    answers, which rejection sampling keeps.

    Source: DeepSeek-R1 (arXiv 2501.12948), section 2.4, which trains students on the teacher's answers alone. Shares and gates are
    ours.
    """
    return [
        PhaseRecipe(
            "teacher-cold-start", "cold_start", _config("cold_start", seed, reward="r1"), budget_fraction=0.20, gate_threshold=0.50,
            gate_metric="accuracy_low", summary="Teaches the teacher the form of reasoning from demonstrations.",
        ),
        PhaseRecipe(
            "teacher-reinforcement", "reinforcement", _config("reinforcement", seed, reward="r1"), budget_fraction=0.45,
            gate_threshold=0.85, gate_metric="accuracy_low", starts_from="teacher-cold-start",
            summary="Reinforces the teacher's right answers.",
        ),
        PhaseRecipe(
            "teacher-answers", "rejection_sampling", _config("rejection_sampling", seed, reward="r1"), budget_fraction=0.15,
            gate_threshold=0.85, gate_metric="accuracy_low", starts_from="teacher-cold-start",
            rollouts_from="teacher-reinforcement", summary="Keeps the teacher's flawless answers, and trains on them.",
        ),
        PhaseRecipe(
            "student", "distillation", _config("distillation", seed, reward="r1"), budget_fraction=0.20, gate_threshold=0.80,
            gate_metric="accuracy_low", rollouts_from="teacher-answers",
            summary="Teaches a small dense model of the Qwen2 class the answers that were kept.",
        ),
    ]


def fine_tuning_recipe(*, seed: int = 0) -> list[PhaseRecipe]:
    """Good answers alone, learnt by a model that is there: few gentle supervised steps, so that it keeps what it can.

    Steps and rate are ours, chosen far below those of a cold start and not tuned.
    """
    settings = {"steps": 40, "optimizer": "adamw", "adamw_lr": 3e-4, "batch_size": 16}
    return [
        PhaseRecipe(
            "fine-tuning", "cold_start", _config("cold_start", seed, settings), budget_fraction=1.0, gate_threshold=None,
            num_rows=1, goes_on=True, summary="Learns the good answers by supervised steps.",
        ),
    ]  # fmt: skip


def reward_model_recipe(*, seed: int = 0) -> list[PhaseRecipe]:
    """A reward model alone, learnt from pairs, with the trunk of a model that is there."""
    return [
        PhaseRecipe(
            "reward-model", "reward_model", _config("reward_model", seed, {"steps": 40, "batch_size": 16}), budget_fraction=1.0,
            gate_threshold=None, num_rows=1, goes_on=True, summary="Learns which of two answers people prefer.",
        ),
    ]  # fmt: skip


def preference_recipe(*, seed: int = 0) -> list[PhaseRecipe]:
    """A reward model learnt from pairs, then reinforcement of the same model with its preference as the whole reward.

    The divergence from the start has a weight, because nothing else holds the policy to sense: the longer it learns to please
    a reward model, the less that means (DeepSeek-R1, arXiv 2501.12948, section 2.3.4). The prompts are those of the pairs.
    Source: Ouyang et al. (arXiv 2203.02155), section 3.5; steps, rates and weights are ours and not tuned.
    """
    (judge,) = reward_model_recipe(seed=seed)
    reward = {"weights": {"preference": 1.0}, "settings": {"preference": {"checkpoint": f"phase:{judge.name}"}}}
    settings = {"steps": 16, "adamw_lr": 1e-4, "prompts_per_step": 8, "group_size": 8, "kl_coef": 0.05}
    return [
        replace(judge, budget_fraction=0.3),
        PhaseRecipe(
            "preference", "reinforcement", _config("reinforcement", seed, settings, reward=reward), budget_fraction=0.7,
            gate_threshold=None, num_rows=1, goes_on=True, summary="Reinforces what the reward model prefers.",
        ),
    ]  # fmt: skip


def _config(phase: str, seed: int, phase_config: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """A `RunConfig` with the phase's own defaults, which are the article recipe's numbers, but for what is given."""
    return {"phase": phase, "seed": seed, **settings, **({"phase_config": phase_config} if phase_config else {})}
