"""The model under DeepSpeed: one update from any number of forward passes, and what DeepSpeed is told.

Where optimizer states are whole (ZeRO stage 0, float32) our own optimizer clips and updates; where they are sharded,
DeepSpeed clips and torch's AdamW updates the shards. `docs/architecture.md` tells which features go together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model_core.config import ModelConfig, RunConfig
from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.planner.memory import effective_stage
from model_core.training.families import Model, Shape, family_of
from model_core.training.groups import OptimizerMaker, build_optimizer, set_rates, with_equal_numbers
from model_core.training.layouts import share_of
from model_core.training.settings import OptimizationConfig
from model_core.training.state import OPTIMIZER, TrainingState
from model_core.training.tensor import fit_heads, tensor_parallel
from model_core.training.world import World

if TYPE_CHECKING:
    from model_core.training.pipeline import StagedTransformer


MAX_BUCKET = 500_000_000
"""Numbers that gradients are gathered in before they are reduced; DeepSpeed allocates them all, however small the model is."""


@dataclass(frozen=True)
class UpdateReport:
    """What one update did: this rank's share of the loss, the norm before clipping (all ranks), the highest rate.

    `is_skipped` is the same on all ranks: the gradient was not finite and no weight was changed.
    """

    loss: float
    grad_norm: float | None
    lr: float
    is_skipped: bool = False
    values: dict[str, float | None] = field(default_factory=dict)
    """Other scalars of the update, the same on all ranks."""


class TrainingEngine:
    """DeepSpeed's engine with what training needs: `update`, and the `state` that checkpoints keep."""

    def __init__(
        self, model: Model, config: RunConfig, settings: OptimizationConfig, world: World, *,
        make_optimizer: OptimizerMaker = build_optimizer,
    ) -> None:
        import deepspeed

        family_of(model.config).check_layout(model.config, config.parallel)
        self.world, self.share = world, share_of(config.parallel, world.rank)
        self.stage = zero_stage(config)
        self.optimizer_kind = optimizer_kind(config, settings)
        if config.precision.gradient_checkpointing:
            checkpoint_blocks(model)
        if config.parallel.tensor > 1:
            fit_heads(model, config.parallel.tensor)
        laid_out = self._staged = staged(model, config) if config.parallel.pipeline > 1 else None

        def optimizer(_parameters: Any) -> torch.optim.Optimizer:
            """Made when DeepSpeed has replaced what it splits, so that groups are of the parameters that there are."""
            clip_here = settings.clip_norm if self.stage == 0 else 0.0
            made = make_optimizer(laid_out or model, settings, self.optimizer_kind, clip_norm=clip_here)
            return with_equal_numbers(made, world) if laid_out else made

        self._engine, _optimizer, _loader, _scheduler = deepspeed.initialize(
            model=laid_out or model, optimizer=optimizer, config=deepspeed_config(config, settings, model.config),
        )
        if config.parallel.tensor > 1:
            # It would compare the first inputs of the ranks by ==, which a packing cannot; `share` gives them the same.
            self._engine.first_dataloader_check.remove()
        if world.size == 1 and self.stage == 0:
            self._engine.enable_backward_allreduce = False  # it would copy every gradient twice to sum it over nobody
        self._clips_here = self.stage == 0
        self.layout = {
            **{f"parallel.{name}": getattr(config.parallel, name) for name in ("num_processes", "expert", "pipeline", "tensor")},
            "parallel.zero_stage": self.stage, "precision.dtype": config.precision.dtype, OPTIMIZER: self.optimizer_kind,
        }
        """How the run is laid out, by the setting that decides it; `state.check_optimizer` knows what must stay as it is."""
        self.state = TrainingState(self._engine, self.module, model.config, world)
        """What a checkpoint keeps of it."""

    @property
    def module(self) -> nn.Module:
        """The model, or what this rank has of it, its experts split when they are."""
        module: nn.Module = self._staged.stage if self._staged else self._engine.module
        return module

    def update(self, losses: Sequence[Callable[[nn.Module], Tensor]], *, rate_factor: float) -> UpdateReport:
        """One optimizer step from the sum of `losses`, over all ranks.

        Each callable runs one forward pass and returns its part of the loss, already divided by what the whole batch
        of all ranks is divided by. All ranks must give equally many. In a pipeline each must be a `pipeline.Pass` too.
        """
        lr, scale = set_rates(self._groups(), rate_factor), self.state.scale()
        total = self._update_staged(losses) if self._staged else self._update_whole(losses)
        norm = self._norm()
        is_finite = norm is None or math.isfinite(norm)
        is_skipped = not is_finite or not self._engine.was_step_applied()
        values: dict[str, float | None] = {}
        if scale:
            values = {"fp16/loss_scale": scale["cur_scale"], "fp16/skipped": float(self._engine.skipped_steps)}
        return UpdateReport(loss=total, grad_norm=norm, lr=lr, is_skipped=is_skipped, values=values)

    def _update_whole(self, losses: Sequence[Callable[[nn.Module], Tensor]]) -> float:
        self._engine.train()
        total = 0.0
        for compute in losses:
            loss = compute(self._engine)
            total += float(loss.detach())
            # DeepSpeed takes the mean over ranks of what is meant as a sum.
            self._engine.backward(loss * self.share.size)
        self._engine.step()
        return total

    def _update_staged(self, passes: Sequence[Any]) -> float:
        assert self._staged is not None
        self._engine.micro_batches = len(passes)
        self._engine.train_batch(self._staged.begin(passes))
        return self._staged.loss()

    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._engine.optimizer.param_groups
        return groups

    def _norm(self) -> float | None:
        if self._clips_here:
            return float(getattr(self._engine.optimizer, "last_norm", 0.0))
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)


def zero_stage(config: RunConfig) -> int:
    """The ZeRO stage that is used, which the planner reckons with too."""
    return effective_stage(config.parallel, config.precision.dtype)


def optimizer_kind(config: RunConfig, settings: OptimizationConfig) -> Literal["muon", "adamw"]:
    """Resolves "auto". Raises ConfigError when Muon is asked for where it cannot live."""
    whole = zero_stage(config) == 0
    if settings.optimizer == "muon" and not whole:
        raise ConfigError(
            "Muon needs whole matrices, but ZeRO stage "
            f"{zero_stage(config)} shards them. Set parallel.zero_stage to 0 (float32 only), or choose adamw.",
            field="phase_config.optimizer",
        )
    if settings.optimizer == "auto":
        return "muon" if whole else "adamw"
    return settings.optimizer


def deepspeed_config(config: RunConfig, settings: OptimizationConfig, shape: Shape) -> dict[str, Any]:
    """DeepSpeed's configuration for a model of `shape`; every default that would surprise is written out."""
    stage = zero_stage(config)
    return {
        "train_micro_batch_size_per_gpu": 1,  # a label only: batches are ours
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": config.parallel.pipeline > 1,  # without: step() is the boundary
        "gradient_clipping": settings.clip_norm if stage else 0.0,  # its default is 1.0
        "zero_optimization": {
            "stage": stage, "overlap_comm": False, "reduce_bucket_size": min(MAX_BUCKET, family_of(shape).count(shape)[0]),
            **offload(config),
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision.dtype == "bfloat16"},
        "fp16": {"enabled": config.precision.dtype == "float16", "initial_scale_power": config.precision.loss_scale_power},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
        **({"expert_parallel": expert_parallel(config, shape)} if config.parallel.expert > 1 else {}),
        **({"tensor_parallel": tensor_parallel(config.parallel.tensor)} if config.parallel.tensor > 1 else {}),
    }


def offload(config: RunConfig) -> dict[str, Any]:
    """Where optimizer states are; DeepSpeed's own CPU optimizer would have to be compiled."""
    return {} if config.parallel.offload == "none" else {"offload_optimizer": {"device": "cpu"}}


def expert_parallel(config: RunConfig, shape: Shape) -> dict[str, Any]:
    """AutoEP's part: its presets know the module names of DeepSeek, which ours are; the gate is that of `shape`."""
    assert isinstance(shape, ModelConfig), "the layout was checked"
    return {
        "enabled": True, "autoep_size": config.parallel.expert, "preset_model": shape.model_type,
        "route_norm": shape.norm_topk_prob, "routed_scaling_factor": shape.routed_scaling_factor,
        "num_expert_groups": shape.n_group, "num_limited_groups": shape.topk_group,
    }


def staged(model: Model, config: RunConfig) -> StagedTransformer:
    """The model as a pipeline; only then is DeepSpeed's part for it loaded."""
    from model_core.training.pipeline import StagedTransformer

    assert isinstance(model, Transformer), "the layout was checked"
    return StagedTransformer(model, num_stages=config.parallel.pipeline, num_groups=config.parallel.data)


def checkpoint_blocks(model: nn.Module) -> None:
    """Makes each transformer block recompute its activations in the backward pass."""
    for block in model.model.layers:  # type: ignore[union-attr]
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
