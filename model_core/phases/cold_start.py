"""Cold start: supervised fine-tuning on demonstrations, from a new model or from a checkpoint.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.1: a small set of long chains before reinforcement learning.
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
class ColdStart:
    """Supervised steps on the completions of the dataset."""

    title: ClassVar[str] = "Cold start"
    describe: ClassVar[str] = "Learns the form of reasoning from demonstrations, by supervised fine-tuning."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "optional", "rollouts_from": "no"}

    class Config(OptimizationConfig):
        """Settings of the cold start."""

        steps: int = Field(420, ge=1, le=10_000_000)
        """Optimizer steps."""
        final_lr_fraction: float = Field(0.02, ge=0, le=1)
        """Share of the peak rate that is left in the last step; a small one makes the end depend less on chance."""
        batch_size: int = Field(32, ge=1)
        """Demonstrations a step, over all processes."""

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Trains and returns the content of result.json."""
        from model_core.training.frame import Frame
        from model_core.training.start import encode_fitting, new_or_loaded, training_rows
        from model_core.training.supervised import SupervisedSteps

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        rows = training_rows(context.paths, need_completion=True)
        start = new_or_loaded(config, context.paths, rows)
        examples = encode_fitting(start.tokenizer, rows, limit=start.model_config.max_position_embeddings,
                                  field="model.max_position_embeddings")
        frame = Frame(config, settings, context, start)
        steps = SupervisedSteps(frame, examples, batch_size=settings.batch_size)
        return frame.run(steps)
