"""What exact resuming needs of a rank: weights in float32, the optimizer's states, random generators, scale of the loss.

`TrainingState` knows where DeepSpeed keeps them. It copies what this rank owns for `stored` to write, and takes up what
any layout has stored. Of the ranks that hold the same part, one saves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model_core.errors import ConfigError
from model_core.training.families import Shape
from model_core.training.muon import MuonWithAdamW
from model_core.training.regions import Region, regions, shape_of
from model_core.training.stored import WEIGHT, Snapshot, StoredState, key_of
from model_core.training.world import World

OPTIMIZER = "phase_config.optimizer"
_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's loss scaler remembers, by its own names."""


@dataclass(frozen=True)
class Part:
    """A stretch of a flattened region, and where it lies: from `offset` on in `holder`, and so in the holder's states."""

    region: Region
    start: int
    numel: int
    holder: Tensor
    offset: int

    @property
    def place(self) -> tuple[str, tuple[tuple[int, int], ...], int, int]:
        """What tells it from others; equal on ranks that hold the same."""
        return self.region.name, self.region.box, self.start, self.numel

    def of(self, tensor: Tensor) -> Tensor:
        """This part of the holder, or of one of its states; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.numel)


class TrainingState:
    """The state of a DeepSpeed engine over `module`, by plain names; all ranks must make it."""

    def __init__(self, engine: Any, module: nn.Module, config: Shape, world: World) -> None:
        wrapper = engine.optimizer
        self._optimizer: torch.optim.Optimizer = getattr(wrapper, "optimizer", wrapper)
        scaler: Any = getattr(wrapper, "loss_scaler", None)
        self._scaler = scaler if getattr(scaler, "dynamic", False) else None  # others have a scale that is always 1
        if self._scaler:
            self._scaler.raise_error_at_min_scale = False  # the frame ends a run whose updates are all skipped, and says why
        self._world = world
        self._parts = list(_parts(regions(module, config).values(), self._optimizer))
        self._owned = _shared_out(self._parts, world)

    def snapshot(self) -> Snapshot:
        """A copy, in the CPU's memory, of what this rank saves."""
        tensors, steps = {}, {}
        for part in self._owned:
            tensors[key_of(WEIGHT, part.region, part.start)] = _copied(part.of(part.holder))
            for name, value in self._states(part.holder).items():
                if isinstance(value, Tensor) and value.shape == part.holder.shape:
                    tensors[key_of(name, part.region, part.start)] = _copied(part.of(value))
                elif name == "step":
                    steps[part.region.name] = int(value)
        return Snapshot(tensors, steps, _random(self._world.device))

    def scale(self) -> dict[str, float]:
        """How the loss is scaled in float16, the same on all ranks; empty in other precisions."""
        return {name: getattr(self._scaler, name) for name in _SCALE} if self._scaler else {}

    @torch.no_grad()
    def restore(self, stored: StoredState, scale: dict[str, float]) -> None:
        """Takes up a stored state, whatever layout wrote it. Raises CheckpointError when a part is not all there."""
        for part in self._parts:
            for name in stored.states(part.region.name):
                into = part.holder if name == WEIGHT else self._made(part, name)
                part.of(into).copy_(stored.read(name, part.region, part.start, part.numel))
            if part.region.name in stored.steps:
                self._count(part.holder, stored.steps[part.region.name])
        for name, value in scale.items() if self._scaler else ():
            setattr(self._scaler, name, value)
        if stored.num_ranks == self._world.size:
            _set_random(stored.random(self._world.rank))

    def _states(self, holder: Tensor) -> dict[str, Any]:
        states: dict[str, Any] = self._optimizer.state.get(holder, {})
        return states

    def _made(self, part: Part, name: str) -> Tensor:
        """The state of this name; optimizers make theirs at the first step only."""
        states = self._optimizer.state[part.holder]
        if name not in states:
            states[name] = torch.zeros_like(part.holder)
        state: Tensor = states[name]
        return state

    def _count(self, holder: Tensor, step: int) -> None:
        """Where ZeRO keeps one count for many tensors it is the largest: one with fewer updates has had no gradient since."""
        states = self._optimizer.state[holder]
        step = max(step, int(states.get("step", 0)))
        states["step"] = step if isinstance(self._optimizer, MuonWithAdamW) else torch.tensor(float(step))


def check_optimizer(saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises ConfigError when the stored states are of another optimizer; every other part of a layout may differ.

    An empty `saved` is of a checkpoint that does not tell.
    """
    theirs, ours = saved.get(OPTIMIZER, here[OPTIMIZER]), here[OPTIMIZER]
    if theirs != ours:
        why = " Muon needs whole matrices: zero_stage 0 in float32." if theirs == "muon" else ""
        raise ConfigError(
            f"optimizer is {ours}, but the checkpoint was saved with {theirs}, whose states {ours} cannot go on with. Resume "
            f"with optimizer {theirs}, or start a new run from the checkpoint.{why}", field=OPTIMIZER,
        )


def _parts(held: Iterable[tuple[Tensor, Region]], optimizer: torch.optim.Optimizer) -> Iterator[Part]:
    """The parts that this rank holds; ZeRO's names for where they lie are private to DeepSpeed, and known only here."""
    for tensor, region in held:
        zero3 = getattr(tensor, "_z3_optimizer", None)
        if zero3 is not None:
            group, offset, numel = zero3.grad_position[zero3.get_param_id(tensor)]
            start = numel * dist.get_rank(tensor.ds_process_group)  # type: ignore[attr-defined]
            numel = min(numel, torch.Size(shape_of(tensor)).numel() - start)  # the last rank's stretch is padded
            if numel > 0:
                yield Part(region, start, numel, zero3.fp32_partitioned_groups_flat[group], offset)
        elif not hasattr(tensor, "_hp_mapping"):
            yield Part(region, 0, tensor.numel(), tensor, 0)
        elif tensor._hp_mapping is not None:  # ZeRO 1 and 2; None: all of it is on other ranks
            mapping: Any = tensor._hp_mapping
            flat = optimizer.param_groups[mapping.param_group_index]["params"][0]
            here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
            yield Part(region, here.start, here.numel, flat, there.start)


def _shared_out(parts: list[Part], world: World) -> list[Part]:
    """The parts that this rank saves: those that several hold go round among these."""
    holders: dict[Any, list[int]] = {}
    for rank, places in enumerate(world.gather([part.place for part in parts if not part.region.is_copy])):
        for place in places:
            holders.setdefault(place, []).append(rank)
    saver = {place: ranks[number % len(ranks)] for number, (place, ranks) in enumerate(holders.items())}
    return [part for part in parts if not part.region.is_copy and saver[part.place] == world.rank]


def _copied(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", copy=True)


def _random(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
