"""Reinforcement: group-relative policy optimization on the model's own answers.

Each step samples a group of completions for some prompts, scores them, and moves the policy towards those that did
better than their group. Source: DeepSeekMath (arXiv 2402.03300), section 4.1; DeepSeek-R1 (arXiv 2501.12948).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from model_core.config import RunConfig
from model_core.config.variants import Advantage, Algorithm, Mean, with_parts
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
        final_temperature: float | None = Field(None, gt=0, le=2)
        """Temperature of the last step, reached in a line; empty: it stays as it is."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Nucleus of sampling; below 1 the sampler's log-probabilities no longer are the policy's."""
        rollout: Literal["in_process", "endpoint"] = "in_process"
        """Who samples: the trainer itself, or a deployed engine that is given the policy's weights before each step."""
        rollout_url: str = Field("", pattern=r"^(https?://[^\s=]+)?$", max_length=300)
        """Address of that engine, our own or SGLang, such as http://10.0.0.7:30000; nobody else should use it meanwhile. The
        machine's owner allows it, with its key, in R1_ROLLOUT_ENGINES."""
        rollout_requests: int = Field(16, ge=1, le=1024)
        """Groups that each process asks the engine for at a time."""
        rollout_seconds: float = Field(600.0, gt=0, le=86_400)
        """Longest wait for a group, or for the engine to take the weights; completions that take longer are aborted."""
        max_canary_difference: float = Field(0.05, gt=0, le=10)
        """Most nats a token by which engine and trainer may differ on the canary prompt after each sync; beyond, the run writes a
        checkpoint and stops. 0.05 is a probability 5 % off, as 16-bit engines are; in float32 1e-3 is enough."""
        num_minibatches: int = Field(2, ge=1)
        """Parts into which a step's rollouts are cut, one update each."""
        num_epochs: int = Field(1, ge=1)
        """Passes over a step's rollouts."""
        algorithm: Algorithm = "grpo_token"
        """Relative of GRPO: decides the six settings below, as far as they are not given. "grpo_token": GRPO with a mean over
        tokens; "grpo": as in the DeepSeekMath paper."""
        advantage: Advantage = "group_std"
        """What a reward is compared with: "group_std": (reward − mean) / deviation of its group; "group_mean": reward − mean
        (Dr. GRPO); "leave_one_out": reward − mean of the others (RLOO); "batch": mean and deviation of the whole step
        (REINFORCE++); "group_mean_batch_std": mean of the group, deviation of the step."""
        ratio: Literal["token", "sequence"] = "token"
        """Ratio of new to old probability: of each token, or of whole sequences (GSPO)."""
        surrogate: Literal["clip", "cispo"] = "clip"
        """"clip": a token beyond the range no longer counts (PPO); "cispo": its weight is capped at 1 + clip_high, and it
        counts."""
        loss_mean: Mean = "token"
        """Mean of the loss: over all tokens; over sequences of the means over their tokens (GRPO); or every sequence divided by
        max_new_tokens, "constant" (Dr. GRPO)."""
        clip_low: float = Field(0.2, gt=0, lt=1)
        """How far the ratio may fall below 1 before a token no longer counts."""
        clip_high: float = Field(0.2, gt=0, le=20)
        """How far the ratio may rise above 1 before a token no longer counts."""
        refill_rounds: int = Field(0, ge=0, le=100)
        """Rounds in which prompts whose rewards are all equal are made up for by others (DAPO's dynamic sampling); 0: off."""
        curriculum: Literal["none", "pass_rate"] = "none"
        """Order of the prompts: "none": all in turn; "pass_rate": from the easiest level to harder ones as the pass rate
        allows, and back."""
        reference_every: int = Field(0, ge=0)
        """Steps after which the policy itself becomes the reference, again and again; 0: the start of the phase stays it."""
        importance_cap: float = Field(0.0, ge=0, le=100)
        """Cap of the weight by which each token is corrected for what trainer and sampler compute differently; costs one more
        forward pass a step; 2 is usual; 0: off, and ratios are taken to the sampler's probabilities."""
        kl_coef: float = Field(0.0, ge=0)
        """Weight of the KL divergence from the model that the phase started with."""
        kl_estimator: Literal["k1", "k2", "k3"] = "k3"
        """Estimate of that divergence in the loss; GRPO takes k3. The mean gradient of k1 is zero: it watches and does not pull."""
        max_logprob_difference: float = Field(0.0, ge=0)
        """Mean difference of trainer's and sampler's log-probabilities, in nats a token, above which for three steps in a row the
        run writes a checkpoint and stops; 0: off."""
        kl_probe: int = Field(64, ge=0)
        """Rollouts a step on which that divergence is measured when its weight is 0; 0: not measured."""

        @model_validator(mode="before")
        @classmethod
        def _parts_of_the_algorithm(cls, values: Any) -> Any:
            return with_parts(values, default=cls.model_fields["algorithm"].default) if isinstance(values, dict) else values

        @model_validator(mode="after")
        def _knows_its_engine(self) -> Self:
            if self.rollout == "endpoint" and not self.rollout_url:
                raise ValueError("rollout_url is empty; give the address of the engine that samples")
            if self.rollout_url and self.rollout != "endpoint":
                raise ValueError("rollout_url is given, but the trainer itself samples; leave it empty, or set rollout to endpoint")
            return self

        @model_validator(mode="after")
        def _has_what_is_replaced(self) -> Self:
            if self.reference_every and not (self.kl_coef or self.kl_probe):
                raise ValueError(
                    f"reference_every is {self.reference_every}, but with kl_coef 0 and kl_probe 0 there is no reference; set it "
                    "to 0 or one of them above 0"
                )
            return self

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
        steps = PolicySteps(frame, settings, problems, reference)
        try:
            return frame.run(steps)
        finally:
            steps.close()
