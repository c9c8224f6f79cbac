"""Rejection sampling: a trained policy writes demonstrations, the good ones are kept, a model learns from them.

For each prompt the shortest chain is kept whose answer is right and whose every equation is true. The samples come
from `rollouts_from` (the reinforced model); the training begins at `start_from` (the cold start).
Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from model_core.config import RunConfig
from model_core.registry import registered
from model_core.training.settings import OptimizationConfig

if TYPE_CHECKING:
    from model_core.training.frame import Context


@registered
class RejectionSampling:
    """Samples, keeps the best chain of each prompt, and fine-tunes on those."""

    title: ClassVar[str] = "Rejection sampling"
    describe: ClassVar[str] = "Keeps the shortest flawless answer to each prompt and fine-tunes on what was kept."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "required", "rollouts_from": "optional"}

    class Config(OptimizationConfig):
        """Settings of sampling and of the training after it."""

        steps: int = Field(80, ge=1, le=10_000_000)
        """Optimizer steps on the kept chains."""
        muon_lr: float = Field(7e-3, gt=0, le=10)
        """Peak learning rate of the matrices under Muon."""
        adamw_lr: float = Field(1e-3, gt=0, le=10)
        """Peak learning rate of everything that AdamW updates."""
        batch_size: int = Field(32, ge=1)
        """Chains a step, over all processes."""
        num_samples: int = Field(4, ge=1)
        """Completions drawn for each prompt."""
        num_chains: int = Field(768, ge=1)
        """Sampling ends when so many prompts have a chain to keep, or all prompts were asked."""
        prompts_per_round: int = Field(256, ge=1)
        """Prompts asked at once, over all processes."""
        max_new_tokens: int = Field(64, ge=1)
        """Longest completion."""
        temperature: float = Field(1.0, gt=0, le=2)
        """Temperature of sampling."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Nucleus of sampling."""

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Samples, trains and returns the content of result.json."""
        from model_core.errors import ConfigError
        from model_core.grpo.chains import chains_of
        from model_core.training.frame import Frame
        from model_core.training.start import answerable, begin, encode_fitting, training_rows
        from model_core.training.supervised import SupervisedSteps

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        if context.paths.start_from is None:
            raise ConfigError("Rejection sampling needs a checkpoint to start from; choose one.", field="start_from")
        rows = answerable(training_rows(context.paths, need_completion=False), context.reporter)
        start = begin(context.paths)
        limit = start.model_config.max_position_embeddings
        frame = Frame(config, settings, context, start)
        chains = chains_of(frame, settings, rows)
        examples = encode_fitting(start.tokenizer, chains, limit=limit, field="phase_config.max_new_tokens")
        return frame.run(SupervisedSteps(frame, examples, batch_size=settings.batch_size))
