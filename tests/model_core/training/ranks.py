"""Several ranks in one process, a thread each: what they tell one another is real, only the wires are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from model_core.training.world import World

T = TypeVar("T")
CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


class Meeting:
    """Where the ranks wait for one another; nobody waits longer than a minute."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)


@dataclass(frozen=True, kw_only=True)
class InThread(World):
    """One of the ranks."""

    meeting: Meeting

    def gather(self, value: Any) -> list[Any]:
        self.meeting.values[self.rank] = value
        self.barrier()
        everybody = list(self.meeting.values)
        self.barrier()
        return everybody

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.copy_(torch.stack(self.gather(tensor.clone())).sum(dim=0))

    def barrier(self) -> None:
        self.meeting.barrier.wait()


def each_rank(size: int, program: Callable[[World], T]) -> list[T]:
    """What `program` returned on each rank. When one fails the others do not wait for it."""
    meeting = Meeting(size)

    def run(rank: int) -> T:
        try:
            return program(InThread(rank, size, CPU, meeting=meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return [future.result() for future in [pool.submit(run, rank) for rank in range(size)]]
