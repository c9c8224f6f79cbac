"""Reinforcement: group-relative policy optimization on the model's own answers.

Each step samples a group of completions for some prompts, scores them, and moves the policy towards those that did
better than their group. Source: DeepSeekMath (arXiv 2402.03300), section 4.1; DeepSeek-R1 (arXiv 2501.12948).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from model_core.config import RunConfig
from model_core.registry import registered
from model_core.training.settings import OptimizationConfig

if TYPE_CHECKING:
    from model_core.training.frame import Context


@registered
class Reinforcement:
    """GRPO from a checkpoint, on prompts whose answers can be verified."""

    title: ClassVar[str] = "Reinforcement"
    describe: ClassVar[str] = "Samples several answers to each prompt, rewards them and reinforces the better ones (GRPO)."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "required", "rollouts_from": "no"}
    no_split_model: ClassVar[str] = (
        "each rank of its update must see the logits of the rollouts that it shares out. Set it to 1; zero_stage 3 and "
        "expert save memory too."
    )
    """Why the phase has neither pipeline nor tensor parallelism."""

    class Config(OptimizationConfig):
        """Settings of GRPO."""

        steps: int = Field(48, ge=1, le=10_000_000)
        """Steps; each samples once and updates `num_minibatches` × `num_epochs` times."""
        optimizer: Literal["auto", "muon", "adamw"] = "adamw"
        """Optimizer; AdamW by default: Muon's steps are of equal size however weak the signal is."""
        adamw_lr: float = Field(2e-4, gt=0, le=10)
        """Peak learning rate."""
        warmup_steps: int = Field(5, ge=0)
        """Steps of linear warm-up; at most all steps, which is what a short phase gets when nothing is said."""
        constant_fraction: float = Field(1.0, ge=0, le=1)
        """Share of the steps after which the rate begins to fall."""
        router_bias_speed: float = Field(1e-4, ge=0, le=1)
        """Step of the routing bias towards equal expert loads, after each update; 0: off."""
        prompts_per_step: int = Field(32, ge=1)
        """Prompts a step, over all processes."""
        group_size: int = Field(16, ge=2)
        """Completions of each prompt."""
        max_new_tokens: int = Field(64, ge=1)
        """Longest completion."""
        temperature: float = Field(1.0, gt=0, le=2)
        """Temperature of sampling; the update uses the same."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Nucleus of sampling; below 1 the sampler's log-probabilities no longer are the policy's."""
        num_minibatches: int = Field(2, ge=1)
        """Parts into which a step's rollouts are cut, one update each."""
        num_epochs: int = Field(1, ge=1)
        """Passes over a step's rollouts."""
        clip_low: float = Field(0.2, gt=0, lt=1)
        """How far the ratio may fall below 1 before a token no longer counts."""
        clip_high: float = Field(0.2, gt=0, le=20)
        """How far the ratio may rise above 1 before a token no longer counts."""
        kl_coef: float = Field(0.0, ge=0)
        """Weight of the KL divergence from the model that the phase started with."""
        kl_probe: int = Field(64, ge=0)
        """Rollouts a step on which that divergence is measured when its weight is 0; 0: not measured."""

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Trains and returns the content of result.json."""
        from model_core.errors import ConfigError
        from model_core.grpo.steps import PolicySteps
        from model_core.training.frame import Frame
        from model_core.training.start import answerable, begin, encode_fitting, load_start, needs_answers, training_rows

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        if context.paths.start_from is None:
            raise ConfigError("Reinforcement needs a checkpoint to start from; choose one.", field="start_from")
        rows = training_rows(context.paths, need_completion=False)
        if needs_answers(config):
            rows = answerable(rows, context.reporter)
        start = begin(context.paths)
        encoded = encode_fitting(
            start.tokenizer, [replace(row, completion=None) for row in rows], reserve=settings.max_new_tokens,
            limit=start.model_config.max_position_embeddings, field="phase_config.max_new_tokens",
        )
        reference = None
        if settings.kl_coef > 0 or settings.kl_probe > 0:
            is_new = context.paths.resume_from is None
            reference = copy.deepcopy(start.model) if is_new else load_start(context.paths.start_from).model
        frame = Frame(config, settings, context, start)
        problems = [(row, prompt) for row, (prompt, _completion) in zip(rows, encoded, strict=True)]
        return frame.run(PolicySteps(frame, settings, problems, reference))
