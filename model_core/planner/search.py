"""The smallest layout that fits devices of one kind, and why smaller ones do not.

Layouts are tried in this order: fewer devices first (1, 2, 4 … and all there are); then what communicates least: no ZeRO 3
(which gathers all weights in every pass), fewer tensor-parallel ranks (two sums in every block), fewer expert-parallel
ranks (tokens travel twice in every block), fewer stages, a lower ZeRO stage, no offload.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model_core.config import ParallelConfig, RunConfig
from model_core.config.combinations import check_combination
from model_core.errors import ConfigError
from model_core.phases import PHASES
from model_core.planner.devices import Device
from model_core.planner.layouts import check_layout
from model_core.planner.memory import Memory, Work, memory
from model_core.planner.parameters import Shape

MAX_DEVICES, MAX_TENSOR = 4096, 8
"""How far is looked beyond the devices that there are; how many ranks share heads, which is those of one machine."""


@dataclass(frozen=True)
class Fit:
    """A layout, what a device of it needs, and whether that is there."""

    parallel: ParallelConfig
    memory: Memory
    is_enough: bool


@dataclass(frozen=True)
class Found:
    """The smallest fit; of each smaller number of devices the layout that needs least; None: not even MAX_DEVICES."""

    fit: Fit | None
    too_small: tuple[Fit, ...]


def smallest_layout(config: RunConfig, shape: Shape, work: Work, device: Device, *, count: int = MAX_DEVICES) -> Found:
    """The first layout in the module's order, over at most `count` devices, whose device needs no more than it has."""
    too_small: list[Fit] = []
    for num_processes in sizes(count):
        least: Fit | None = None
        for parallel in layouts(config, shape, num_processes):
            needed = memory(shape, parallel, config.precision, work)
            fit = Fit(parallel, needed, needed.peak.total <= device.usable_bytes)
            if fit.is_enough:
                return Found(fit, tuple(too_small))
            if least is None or needed.peak.total < least.memory.peak.total:
                least = fit
        if least is not None:
            too_small.append(least)
    return Found(None, tuple(too_small))


def sizes(count: int) -> list[int]:
    """Powers of two up to `count`, and `count`."""
    powers = [2**exponent for exponent in range(count.bit_length()) if 2**exponent <= count]
    return sorted({*powers, count})


def layouts(config: RunConfig, shape: Shape, num_processes: int) -> Iterator[ParallelConfig]:
    """Every layout over `num_processes` that the trainer has for a parsed `config` and the shape, in the module's order."""
    phase = PHASES.get(config.phase)
    for parallel in sorted(_all(num_processes), key=_traffic):
        try:
            check_layout(shape, parallel)
            check_combination(config.model_copy(update={"parallel": parallel}), phase)
        except ConfigError:
            continue
        yield parallel


def _all(num_processes: int) -> Iterator[ParallelConfig]:
    divisors = [d for d in range(1, num_processes + 1) if num_processes % d == 0]
    for pipeline in divisors:
        for tensor in (d for d in divisors if d <= MAX_TENSOR and num_processes % (pipeline * d) == 0):
            data = num_processes // (pipeline * tensor)
            for expert in (d for d in divisors if data % d == 0):
                for zero_stage in (0, 1, 2, 3):
                    yield ParallelConfig(
                        num_processes=num_processes, pipeline=pipeline, tensor=tensor, expert=expert, zero_stage=zero_stage
                    )


def _traffic(parallel: ParallelConfig) -> tuple[int, ...]:
    return (parallel.zero_stage == 3, parallel.tensor, parallel.expert, parallel.pipeline, parallel.zero_stage)
