"""The settings of optimization that every training phase has, as the base of its `Config`. Imports without torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from model_core.config import StrictModel
from model_core.config.rates import RateFactors


class OptimizationConfig(StrictModel):
    """Base of a phase's settings; a phase gives its own defaults by writing the field again."""

    steps: int = Field(100, ge=1, le=10_000_000)
    """Steps of the phase."""
    optimizer: Literal["auto", "muon", "adamw"] = "auto"
    """"muon": Muon on the matrices of the blocks and AdamW on the rest; needs float32 and unsharded optimizer states.
    "adamw": AdamW on all. "auto": Muon where it can live, else AdamW, and the run says so."""
    muon_lr: float = Field(0.02, gt=0, le=10)
    """Peak learning rate of the matrices under Muon."""
    adamw_lr: float = Field(3e-3, gt=0, le=10)
    """Peak learning rate of everything that AdamW updates."""
    weight_decay: float = Field(0.0, ge=0, lt=1)
    """Decoupled weight decay."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of linear warm-up; at most all steps, which is what a short phase gets when nothing is said."""
    constant_fraction: float = Field(0.5, ge=0, le=1)
    """Share of the steps after which the rate begins to fall."""
    final_lr_fraction: float = Field(0.1, ge=0, le=1)
    """Share of the peak rate that is left in the last step."""
    layer_lr_decay: float = Field(1.0, gt=0, le=1)
    """Layer-wise learning rates: each block has this factor of the rate of the block above it; 1: all equal."""
    lr_factors: RateFactors = Field(default_factory=RateFactors)
    """Factors of the rate for each kind of weight, on top of those of the layers."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest global norm of the gradient; 0: not clipped."""
    router_bias_speed: float = Field(1e-3, ge=0, le=1)
    """Step of the routing bias towards equal expert loads, after each update; 0: off."""
    aux_loss_alpha: float = Field(0.0, ge=0, le=1)
    """Factor of the sequence-wise balance loss, which keeps one sequence from crowding few experts; DeepSeek-V3 trains with
    1e-4. 0: off, the bias alone balances."""
    mtp_loss_weight: float = Field(0.3, ge=0, le=10)
    """λ, factor of the loss of multi-token prediction in supervised phases, for models that have it; DeepSeek-V3 begins with
    0.3 and ends with 0.1."""
    max_micro_tokens: int = Field(4096, ge=1)
    """Most padded tokens in one forward pass; a larger batch is split, which changes memory and not the result. On a CPU
    4096 is a third faster than 16384, because activations stay near the cache; a GPU may want more."""

    @model_validator(mode="before")
    @classmethod
    def _short_phase(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "warmup_steps" in values or not isinstance(values.get("steps"), int):
            return values
        return {**values, "warmup_steps": min(cls.model_fields["warmup_steps"].default, values["steps"])}

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} but steps is {self.steps}: the rate would never reach its peak; lower it"
            )
        return self
