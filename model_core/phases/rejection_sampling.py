"""Rejection sampling: a trained policy writes demonstrations, the good ones are kept, a model learns from them.

For each prompt the best chains are kept whose answer is right and whose every equation is true. The samples come from
`rollouts_from` (the reinforced model). The training begins at `start_from` (the article: the cold start), or without one
at new weights (the paper: the base), and may mix in general demonstrations.
Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.3.
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
class RejectionSampling:
    """Samples, keeps the best chains of each prompt, and fine-tunes on those."""

    title: ClassVar[str] = "Rejection sampling"
    describe: ClassVar[str] = "Keeps the best flawless answers to each prompt and fine-tunes on what was kept."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "optional", "rollouts_from": "optional", "any_source": True}

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
        max_chains_per_prompt: int = Field(1, ge=1)
        """Most chains kept of one prompt."""
        prefer: Literal["shortest", "best_reward"] = "shortest"
        """Which of a prompt's flawless chains are kept first; among equal rewards the shorter."""
        min_reward: float | None = Field(None)
        """Least weighted reward of a chain; empty: a right answer by true equations is enough."""
        refuse_code_blocks: bool = True
        """Leaves out reasoning with a code block, as DeepSeek-R1 does."""
        max_paragraph_chars: int = Field(4000, ge=0)
        """Leaves out reasoning with a longer paragraph, in characters; 0: any length."""
        refuse_mixed_scripts: bool = True
        """Leaves out reasoning of which more than a tenth of the letters are of another script than the rest."""
        general_fraction: float = Field(0.0, ge=0, lt=1)
        """Share of the training examples that are the dataset's own demonstrations without a verifiable answer; DeepSeek-R1
        mixes 200k of them with 600k chains, which is 0.25."""

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Samples, trains and returns the content of result.json."""
        from model_core.grpo.chains import chains_of, with_general
        from model_core.training.frame import Frame
        from model_core.training.start import answerable, encode_fitting, new_like, training_rows
        from model_core.training.supervised import SupervisedSteps

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        rows = training_rows(context.paths, need_completion=False)
        start = new_like(config, context.paths)
        frame = Frame(config, settings, context, start)
        chains = chains_of(frame, settings, answerable(rows, context.reporter))
        chains = with_general(chains, rows, fraction=settings.general_fraction, seed=config.seed)
        limit = start.model_config.max_position_embeddings
        examples = encode_fitting(start.tokenizer, chains, limit=limit, field="phase_config.max_new_tokens")
        return frame.run(SupervisedSteps(frame, examples, batch_size=settings.batch_size))
