"""The model under DeepSpeed: one update from any number of forward passes, and what DeepSpeed is told.

Where optimizer states are whole (ZeRO stage 0, float32) our own optimizer clips and updates; where they are sharded,
DeepSpeed clips and torch's AdamW updates the shards. `docs/architecture.md` tells which features go together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model_core.config import ModelConfig, RunConfig
from model_core.errors import CheckpointError, ConfigError
from model_core.model import Transformer
from model_core.training.groups import build_optimizer, set_rates
from model_core.training.settings import OptimizationConfig
from model_core.training.world import World


@dataclass(frozen=True)
class UpdateReport:
    """What one update did: this rank's share of the loss, the norm before clipping (all ranks), the highest rate.

    `is_skipped` is the same on all ranks: the gradient was not finite and no weight was changed.
    """

    loss: float
    grad_norm: float | None
    lr: float
    is_skipped: bool = False


class TrainingEngine:
    """DeepSpeed's engine with the two operations that training needs: `update`, and saving or loading its state."""

    def __init__(self, model: Transformer, config: RunConfig, settings: OptimizationConfig, world: World) -> None:
        import deepspeed

        check_experts(model.config, config)
        self.world = world
        self.stage = zero_stage(config)
        self.optimizer_kind = optimizer_kind(config, settings)
        if config.precision.gradient_checkpointing:
            checkpoint_blocks(model)
        clip_here = settings.clip_norm if self.stage == 0 else 0.0
        self._engine, _optimizer, _loader, _scheduler = deepspeed.initialize(
            model=model,
            optimizer=lambda _parameters: build_optimizer(model, settings, self.optimizer_kind, clip_norm=clip_here),
            config=deepspeed_config(config, settings, model.config),
        )
        self._clips_here = self.stage == 0
        self.layout = {
            "parallel.num_processes": config.parallel.num_processes, "parallel.zero_stage": self.stage,
            "parallel.expert": config.parallel.expert, "precision.dtype": config.precision.dtype,
            "phase_config.optimizer": self.optimizer_kind, "phase_config.layer_lr_decay": settings.layer_lr_decay,
        }
        """How the saved state is cut, by the setting that decides it: a state is read back only by the same layout."""

    @property
    def module(self) -> nn.Module:
        """The model, with its experts split when they are."""
        module: nn.Module = self._engine.module
        return module

    def update(self, losses: Sequence[Callable[[nn.Module], Tensor]], *, rate_factor: float) -> UpdateReport:
        """One optimizer step from the sum of `losses`, over all ranks.

        Each callable runs one forward pass and returns its part of the loss, already divided by what the whole batch
        of all ranks is divided by. All ranks must give equally many.
        """
        lr = set_rates(self._groups(), rate_factor)
        self._engine.train()
        total = 0.0
        for compute in losses:
            loss = compute(self._engine)
            total += float(loss.detach())
            # DeepSpeed takes the mean over ranks of what is meant as a sum.
            self._engine.backward(loss * self.world.size)
        self._engine.step()
        norm = self._norm()
        is_finite = norm is None or math.isfinite(norm)
        is_skipped = not is_finite or not self._engine.was_step_applied()
        return UpdateReport(loss=total, grad_norm=norm, lr=lr, is_skipped=is_skipped)

    def save(self, directory: Path, counters: dict[str, Any]) -> None:
        """Writes what exact resuming needs besides `model/`; all ranks must call it."""
        self._engine.save_checkpoint(str(directory), tag="engine", client_state={"counters": counters})

    def load(self, directory: Path) -> dict[str, Any]:
        """Reads it back and returns the counters; rates and decay stay those of this run's configuration.

        Raises CheckpointError when there is no state for this rank. The caller has compared the `layout`.
        """
        wanted = [{name: group[name] for name in ("peak_lr", "weight_decay")} for group in self._groups()]
        path, client_state = self._engine.load_checkpoint(str(directory), tag="engine")
        if path is None:
            raise CheckpointError(f"{directory} holds no state of rank {self.world.rank}. Choose another checkpoint.")
        for group, values in zip(self._groups(), wanted, strict=True):
            group.update(values)
        counters: dict[str, Any] = client_state["counters"]
        return counters

    def state_bytes(self) -> int:
        """About what one checkpoint of all ranks takes on the disk: the weights twice and the optimizer's states."""
        weights = 4 * sum(parameter.numel() for parameter in self.module.parameters())
        states = getattr(self._engine.optimizer, "state", {})
        own = sum(value.nbytes for state in states.values() for value in state.values() if isinstance(value, Tensor))
        return 2 * weights + own * self.world.size

    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._engine.optimizer.param_groups
        return groups

    def _norm(self) -> float | None:
        if self._clips_here:
            return float(getattr(self._engine.optimizer, "last_norm", 0.0))
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)


def zero_stage(config: RunConfig) -> int:
    """The ZeRO stage that is used: one process in float32 has nothing to shard, so it goes without."""
    alone = config.parallel.num_processes == 1 and config.precision.dtype == "float32"
    return 0 if alone and config.parallel.zero_stage < 3 else config.parallel.zero_stage


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


def check_parallel(config: RunConfig) -> None:
    """Raises ConfigError for combinations that DeepSpeed computes wrongly or that this trainer does not have."""
    stage, dtype, where = config.parallel.zero_stage, config.precision.dtype, "parallel.zero_stage"
    if dtype != "float32" and stage == 0:
        raise ConfigError(f"{dtype} needs zero_stage 1 or 2: at stage 0 DeepSpeed steps wrongly.", field=where)
    if stage == 3:
        raise ConfigError("zero_stage 3 (split weights) cannot sample here; choose 0, 1 or 2.", field=where)
    if config.parallel.expert > 1 and stage == 0:
        raise ConfigError("Split experts need zero_stage 1 or 2: at stage 0 the gradient norm misses some.", field=where)


def check_experts(shape: ModelConfig, config: RunConfig) -> None:
    """Raises ConfigError when the experts of the model that is trained, new or loaded, cannot be split as asked for."""
    num_ranks, where = config.parallel.expert, "parallel.expert"
    if num_ranks == 1:
        return
    if shape.first_k_dense_replace >= shape.num_hidden_layers:
        raise ConfigError(f"expert is {num_ranks}, but the model has no expert layer; set it to 1.", field=where)
    if shape.n_routed_experts % num_ranks:
        raise ConfigError(
            f"{shape.n_routed_experts} routed experts cannot be split over {num_ranks} ranks; choose a divisor.",
            field=where,
        )
    if shape.n_group == shape.n_routed_experts:
        raise ConfigError(f"n_group is {shape.n_group}: groups of one expert cannot be split; set expert to 1.", field=where)


def check_layout(saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises ConfigError at the first setting by which a saved state is cut another way than this run's.

    An empty `saved` is of a checkpoint that does not tell; DeepSpeed then decides.
    """
    for field, value in here.items():
        if saved.get(field, value) != value:
            name = field.rpartition(".")[2]
            raise ConfigError(
                f"{name} is {value}, but the checkpoint was saved with {saved[field]}, and its optimizer state cannot be "
                f"cut anew. Resume with {name} {saved[field]}, or start a new run from the checkpoint.", field=field,
            )


def deepspeed_config(config: RunConfig, settings: OptimizationConfig, shape: ModelConfig) -> dict[str, Any]:
    """DeepSpeed's configuration for a model of `shape`; every default that would surprise is written out."""
    stage = zero_stage(config)
    return {
        "train_micro_batch_size_per_gpu": 1,  # a label only: batches are ours
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # step() is the boundary
        "gradient_clipping": settings.clip_norm if stage else 0.0,  # its default is 1.0
        "zero_optimization": {"stage": stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.precision.dtype == "bfloat16"},
        "fp16": {"enabled": config.precision.dtype == "float16", "initial_scale_power": 12},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
        **({"expert_parallel": expert_parallel(config, shape)} if config.parallel.expert > 1 else {}),
    }


def expert_parallel(config: RunConfig, shape: ModelConfig) -> dict[str, Any]:
    """AutoEP's part: the preset knows the module names of DeepSeek-V3, which ours are; the gate is that of `shape`."""
    return {
        "enabled": True, "autoep_size": config.parallel.expert, "preset_model": "deepseek_v3",
        "route_norm": shape.norm_topk_prob, "routed_scaling_factor": shape.routed_scaling_factor,
        "num_expert_groups": shape.n_group, "num_limited_groups": shape.topk_group,
    }


def checkpoint_blocks(model: nn.Module) -> None:
    """Makes each transformer block recompute its activations in the backward pass."""
    for block in model.model.layers:  # type: ignore[union-attr]
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
