"""Memory of one device in training, by part and by moment; the largest moment on the fullest device is what must be there.

A step has two moments that can be the worst: the backward pass of its second or a later forward pass, when gradients are
there already, and the update. A run that samples has a third. What activations are is in `activations`.
Source of the states' sizes: ZeRO (arXiv 1910.02054), section 3, and what DeepSpeed 0.19 was measured to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_core.config import ParallelConfig, PrecisionConfig
from model_core.planner.activations import FLOAT, Activations
from model_core.planner.dense import DenseModel
from model_core.planner.dense_activations import DenseActivations
from model_core.planner.device import Held, held
from model_core.planner.layouts import blocks_of_stages, check_layout
from model_core.planner.muon import matrices, muon_peak
from model_core.planner.parameters import Shape, parameters

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number of each training precision."""
BUCKET = 500_000_000
"""Numbers in the buffer through which DeepSpeed reduces sharded gradients, if the model has so many."""
GATHERED = 1_000_000_000
"""Numbers of weights that DeepSpeed has gathered at once at ZeRO stage 3, if the device's part of the model has so many."""


@dataclass(frozen=True)
class Work:
    """What a device is given to do at once."""

    micro_tokens: int = 4096
    """Tokens of one forward pass, padding included."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """What updates the matrices of the blocks."""
    cache_rows: int = 0
    """Completions that are sampled together; 0: the run does not sample."""
    cache_tokens: int = 0
    """Longest completion with its prompt."""
    has_reference: bool = False
    """Whether a frozen copy of the model in float32 is compared with."""


@dataclass(frozen=True)
class Moment:
    """Bytes by part at one moment of a run."""

    name: Literal["backward", "update", "sampling"]
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Memory:
    """What one device holds at each moment; `host_bytes` is what an offloaded optimizer takes of the CPU's memory."""

    moments: tuple[Moment, ...]
    host_bytes: int = 0

    @property
    def peak(self) -> Moment:
        """The moment that needs most."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def state_bytes(self) -> int:
        """What a step needs however few tokens it is about: weights, masters, optimizer, reference, gradients."""
        names = ("weights", "masters", "optimizer", "reference", "gradients")
        return max(sum(moment.parts.get(name, 0) for name in names) for moment in self.moments)


def effective_stage(parallel: ParallelConfig, dtype: str) -> int:
    """The ZeRO stage that is used: one process in float32 has nothing to shard, so it goes without."""
    alone = parallel.num_processes == 1 and dtype == "float32" and parallel.offload == "none"
    return 0 if alone and parallel.zero_stage < 3 else parallel.zero_stage


def memory(config: Shape, parallel: ParallelConfig, precision: PrecisionConfig, work: Work) -> Memory:
    """The memory of the device that needs most. Raises ConfigError for a layout that the shape does not allow."""
    check_layout(config, parallel)
    devices = [
        _Device(config, parallel, precision, work, blocks, in_flight=parallel.pipeline - number).memory()
        for number, blocks in enumerate(blocks_of_stages(config.num_hidden_layers, parallel.pipeline))
    ]
    return max(devices, key=lambda device: device.peak.total)


class _Device:
    """One device that holds `blocks`, with `in_flight` passes between their forward and their backward (1F1B)."""

    def __init__(
        self, config: Shape, parallel: ParallelConfig, precision: PrecisionConfig, work: Work, blocks: range, *,
        in_flight: int,
    ) -> None:  # fmt: skip
        self.config, self.parallel, self.work, self.blocks = config, parallel, work, blocks
        self.in_flight, self.checkpointing = in_flight, precision.gradient_checkpointing
        self.size, self.stage = BYTES[precision.dtype], effective_stage(parallel, precision.dtype)
        self.held: Held = held(config, parallel, blocks)

    def memory(self) -> Memory:
        on_host = self.parallel.offload == "optimizer"
        states = {"masters": self._masters(), "optimizer": self._optimizer()}
        always = {"weights": self._weights(), **(dict.fromkeys(states, 0) if on_host else states)}
        if self.work.has_reference:
            always["reference"] = FLOAT * parameters(self.config).trained
        moments = [Moment("backward", always | self._backward()), Moment("update", always | self._update(on_host=on_host))]
        if self.work.cache_rows:
            moments.append(Moment("sampling", always | self._sampling()))
        on_host_bytes = sum(states.values()) + FLOAT * self.held.shard
        return Memory(tuple(moments), host_bytes=on_host_bytes if on_host else 0)

    def _weights(self) -> int:
        """In the training precision; at stage 3 only a shard of them."""
        return self.size * (self.held.shard if self.stage == 3 else self.held.total)

    def _masters(self) -> int:
        """A flat float32 copy of the shard that is updated here; DeepSpeed keeps it even where weights are float32."""
        return FLOAT * self.held.shard if self.stage else 0

    def _optimizer(self) -> int:
        """AdamW's two moments in float32; Muon has one for matrices, and lives only where nothing is sharded."""
        numbers = self.held.shard if self.stage else self.held.total
        two_each = 2 * FLOAT * numbers
        return two_each - FLOAT * matrices(self.config) if self.work.optimizer == "muon" else two_each

    def _gradients(self) -> int:
        """In the training precision: of all weights, from stage 2 on of the shard only."""
        return self.size * (self.held.shard if self.stage >= 2 else self.held.total)

    def _backward(self) -> dict[str, int]:
        """Gradients, what the passes in flight keep, and what the backward pass of one of them needs besides."""
        (each, peak), bucket = self._activations(), self._bucket()
        kept = self.in_flight * each
        if self.stage >= 2:  # the buffer is flattened once more at the end, when activations are gone
            peak = max(peak, bucket - kept)
        return {"gradients": self._gradients(), "activations": kept, "temporary": peak + bucket + self._gathering()}

    def _activations(self) -> tuple[int, int]:
        """What a pass keeps, and what its backward pass needs besides."""
        if isinstance(self.config, DenseModel):
            student = DenseActivations(self.config, tokens=self.work.micro_tokens, size=self.size)
            return student.kept(checkpointing=self.checkpointing), student.peak(checkpointing=self.checkpointing)
        own = Activations(
            self.config, tokens=self.work.micro_tokens, size=self.size, tensor=self.parallel.tensor, expert=self.parallel.expert
        )
        kept = own.kept(self.blocks, checkpointing=self.checkpointing)
        return kept, own.peak(self.blocks, checkpointing=self.checkpointing)

    def _bucket(self) -> int:
        """The buffer that sharded gradients go through on their way to who updates them."""
        return self.size * min(BUCKET, parameters(self.config).trained) if self.stage else 0

    def _gathering(self) -> int:
        """Whole weights of the modules at work, at stage 3."""
        return self.size * min(GATHERED, self.held.total) if self.stage == 3 else 0

    def _update(self, *, on_host: bool) -> dict[str, int]:
        """Sharded: the float32 gradient of the shard and, of its larger group, two more of AdamW's numbers. Whole: all
        gradients and the larger of what comes one after the other, a flat copy of them in which they are summed over ranks
        (DeepSpeed makes it for one rank too), and what Muon needs, or AdamW for the largest tensor."""
        if on_host:
            return {"gradients": self._gradients(), "temporary": 0}
        if self.stage:
            largest = max(self.held.dense_shard, self.held.expert_shard)
            return {"gradients": FLOAT * self.held.shard, "temporary": 2 * FLOAT * largest}
        c, flat = self.config, self.size * min(BUCKET, self.held.total)
        adamw = FLOAT * largest_tensor(c)
        return {"gradients": self._gradients(), "temporary": max(flat, muon_peak(c) if self.work.optimizer == "muon" else adamw)}

    def _sampling(self) -> dict[str, int]:
        """The cache, the logits of all rows four times over, and where the model is split a whole float32 copy of it and
        the gathered weights that it is filled from."""
        rows, parallel = self.work.cache_rows, self.parallel
        is_split = self.stage == 3 or parallel.expert * parallel.pipeline * parallel.tensor > 1
        copied = FLOAT * parameters(self.config).trained if is_split else 0
        return {
            "cache": rows * self.work.cache_tokens * cache_bytes(self.config, FLOAT if is_split else self.size),
            "copy": copied,
            "temporary": copied + 4 * FLOAT * rows * self.config.vocab_size,
        }


def largest_tensor(config: Shape) -> int:
    """Numbers of the largest weight: the stacked first matrices of all experts, or the embedding."""
    if isinstance(config, DenseModel):
        return config.largest_tensor()
    gate_up = config.n_routed_experts * 2 * config.moe_intermediate_size * config.hidden_size
    return max(gate_up, config.vocab_size * config.hidden_size)


def cache_bytes(config: Shape, size: int) -> int:
    """Bytes of the cache for one token, in numbers of `size` bytes: the latent and the rotary key of each block, or a
    student's keys and values."""
    if isinstance(config, DenseModel):
        return 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers * size
    return (config.kv_lora_rank + config.qk_rope_head_dim) * config.num_hidden_layers * size
