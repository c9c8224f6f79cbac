"""On-policy distillation: a student answers, and a teacher says at each of its tokens what it would have said itself.

The student learns from the mistakes that it makes, not from texts that it would never write. Both must have the same tokenizer,
because whole distributions over the vocabulary are compared.
Source: Agarwal et al., “On-Policy Distillation of Language Models” (GKD, arXiv 2306.13649), algorithm 1 and equation 1. Ours draws
for each prompt of a step, not for the whole step, whether the student or the dataset answers.
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
class OnPolicyDistillation:
    """Moves a student's distributions towards a teacher's, on the student's own answers."""

    title: ClassVar[str] = "On-policy distillation"
    describe: ClassVar[str] = "Lets a student answer, and teaches it what a teacher of the same vocabulary would say at each token."
    needs: ClassVar[dict[str, Any]] = {"dataset": True, "start_from": "required", "rollouts_from": "required"}
    no_split_model: ClassVar[str] = (
        "each rank of its update must see whole distributions of its answers. Set it to 1; zero_stage 3 and expert save memory too."
    )
    """Why the phase has neither pipeline nor tensor parallelism."""

    class Config(OptimizationConfig):
        """Settings of sampling and of the update. `start_from` is the student, `rollouts_from` the teacher."""

        steps: int = Field(100, ge=1, le=10_000_000)
        """Steps; each samples once and updates once."""
        optimizer: Literal["auto", "muon", "adamw"] = "adamw"
        """Optimizer; AdamW by default: Muon's steps are of equal size however near student and teacher are."""
        adamw_lr: float = Field(3e-4, gt=0, le=10)
        """Peak learning rate."""
        batch_size: int = Field(64, ge=1)
        """Prompts a step, over all processes, each with one answer."""
        max_new_tokens: int = Field(64, ge=1)
        """Longest answer of the student."""
        temperature: float = Field(1.0, gt=0, le=2)
        """Temperature of the student's answers; the distributions are compared as they are."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Nucleus of the student's answers."""
        beta: float = Field(1.0, ge=0, le=1)
        """Divergence: 1 is the reverse KL, KL(student ‖ teacher), which keeps to what the teacher finds likely; 0 the forward KL,
        which covers all of it; between, the generalised Jensen–Shannon divergence with this share of the teacher in the mixture."""
        on_policy_fraction: float = Field(1.0, ge=0, le=1)
        """λ, share of the prompts that the student answers; the others are answered by the dataset's demonstrations."""

    def run(self, config: RunConfig, context: Context) -> dict[str, Any]:
        """Trains and returns the content of result.json."""
        from model_core.training.frame import Frame
        from model_core.training.on_policy import OnPolicySteps, encode_problems
        from model_core.training.start import training_rows
        from model_core.training.teachers import begin_taught

        settings = self.Config.parse(config.phase_config, prefix="phase_config")
        rows = training_rows(context.paths, need_completion=settings.on_policy_fraction < 1)
        start, teacher = begin_taught(context.paths, context.world)
        problems = encode_problems(start, rows, settings, limit=teacher.config.max_position_embeddings)
        frame = Frame(config, settings, context, start)
        return frame.run(OnPolicySteps(frame, settings, problems, teacher))
