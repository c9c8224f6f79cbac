"""Reward model: learns from pairs of answers which of two people prefer, for the reward `preference`.

A language model's checkpoint gets a head that gives one number; of each pair the chosen answer is to have the higher one. What is
measured is the share of held-out pairs that it puts in the right order, which is the gate's quality and accuracy.
Source: Ouyang et al. (arXiv 2203.02155), section 3.5; DeepSeek-R1 (arXiv 2501.12948v2) trains its own so, on 66,000 pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from model_core.config import RunConfig
from model_core.registry import registered
from model_core.training.settings import OptimizationConfig

if TYPE_CHECKING:
    from model_core.training.frame import Context


@registered
class RewardModel:
    """Steps on pairs of a chosen and a rejected answer (Bradley–Terry)."""

    title: ClassVar[str] = "Reward model"
    describe: ClassVar[str] = "Learns from pairs of answers which one is preferred, to judge answers in reinforcement."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "required", "rollouts_from": "no"}
    measures: ClassVar[tuple[str, ...]] = ("quality", "accuracy")
    """What a gate may compare: both are the share of held-out pairs in the right order. It answers no benchmark."""
    no_split_model: ClassVar[str] = "a reward model's head reads whole texts. Set it to 1; zero_stage 3 and expert save memory too."
    """Why the phase has neither pipeline nor tensor parallelism."""

    class Config(OptimizationConfig):
        """Settings of the training."""

        steps: int = Field(60, ge=1, le=10_000_000)
        """Optimizer steps; one pass over the pairs is usual, and more soon learn them by heart."""
        optimizer: Literal["auto", "muon", "adamw"] = "adamw"
        """Optimizer; AdamW by default, because the trunk is only to be bent a little."""
        adamw_lr: float = Field(1e-3, gt=0, le=10)
        """Peak learning rate."""
        batch_size: int = Field(32, ge=1)
        """Pairs a step, over all processes; DeepSeek-R1 takes 256."""
        centre_coef: float = Field(0.0, ge=0, le=10)
        """Factor of (chosen + rejected)², which keeps scores near 0; 0.01 is usual. 0: off, and scores may drift together."""

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Trains and returns the content of result.json."""
        from model_core.training.frame import Frame
        from model_core.training.pairs import PairSteps
        from model_core.training.reward_models import begin_reward_model, encode_pairs, training_pairs

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        rows = training_pairs(context.paths)
        start = begin_reward_model(context.paths, seed=config.seed)
        pairs = encode_pairs(start, rows)
        frame = Frame(config, settings, context, start)
        steps = PairSteps(frame, settings, start, pairs)
        return frame.run(steps, measure=steps.measure)
