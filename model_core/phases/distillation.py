"""Distillation: a dense student learns the chains of a larger model by supervised fine-tuning alone.

The curated set is what rejection sampling kept (`rollouts_from`), without one the dataset's demonstrations. The student
is new, of the shape in the settings, or a Hugging Face directory (`RunPaths.student`).
Source: DeepSeek-R1 (arXiv 2501.12948), section 2.4: open dense models are fine-tuned on the curated samples, without
reinforcement learning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from model_core.config import RunConfig
from model_core.registry import registered
from model_core.training.settings import OptimizationConfig

if TYPE_CHECKING:
    from model_core.training.frame import Context


@registered
class Distillation:
    """Supervised steps of a dense student on a curated set."""

    title: ClassVar[str] = "Distillation"
    describe: ClassVar[str] = "Teaches a small dense model the kept chains of the large one, by supervised fine-tuning."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "optional", "rollouts_from": "optional"}
    no_split_model: ClassVar[str] = "a dense student is trained whole on each process. Set it to 1."

    class Config(OptimizationConfig):
        """Settings of the training, and the shape of a new student; one that is loaded has its own."""

        steps: int = Field(420, ge=1, le=10_000_000)
        """Optimizer steps."""
        final_lr_fraction: float = Field(0.02, ge=0, le=1)
        """Share of the peak rate that is left in the last step."""
        batch_size: int = Field(32, ge=1)
        """Chains a step, over all processes."""
        student_class: Literal["qwen2", "qwen3", "llama"] = "qwen2"
        """Class of a new student, by its Hugging Face name."""
        hidden_size: int = Field(128, ge=8)
        """Width of the residual stream."""
        num_hidden_layers: int = Field(3, ge=1)
        """Number of transformer blocks."""
        num_attention_heads: int = Field(4, ge=1)
        """Heads of the queries; they divide hidden_size."""
        num_key_value_heads: int = Field(2, ge=1)
        """Heads of keys and values; they divide the heads of the queries."""
        intermediate_size: int = Field(256, ge=1)
        """Inner width of the MLP."""
        max_position_embeddings: int = Field(256, ge=8)
        """Longest sequence, in tokens."""

        @model_validator(mode="after")
        def _heads_divide(self) -> Self:
            if self.hidden_size % (2 * self.num_attention_heads):
                raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of twice num_attention_heads "
                                 f"{self.num_attention_heads}: a head's width is even")
            if self.num_attention_heads % self.num_key_value_heads:
                raise ValueError(f"num_key_value_heads {self.num_key_value_heads} must divide num_attention_heads "
                                 f"{self.num_attention_heads}")
            return self

        def shape(self, vocab_size: int) -> dict[str, Any]:
            """The config.json of a new student."""
            sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
                     "max_position_embeddings")
            return {
                **{name: getattr(self, name) for name in sizes}, "model_type": self.student_class, "vocab_size": vocab_size,
                "head_dim": self.hidden_size // self.num_attention_heads, "tie_word_embeddings": False, "rms_norm_eps": 1e-6,
            }

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Trains and returns the content of result.json."""
        from model_core.training.frame import Frame
        from model_core.training.start import encode_fitting
        from model_core.training.students import begin_student, curated_rows
        from model_core.training.supervised import SupervisedSteps

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        rows = curated_rows(context.paths)
        start = begin_student(config, settings, context.paths, rows, context.world)
        examples = encode_fitting(start.tokenizer, rows, limit=start.model_config.max_position_embeddings,
                                  field="phase_config.max_position_embeddings")
        frame = Frame(config, settings, context, start)
        return frame.run(SupervisedSteps(frame, examples, batch_size=settings.batch_size))
