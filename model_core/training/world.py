"""The processes of one run: who this one is and the few things that all of them must agree on.

The launcher sets the environment; a process that was started bare becomes a world of one. On one process nothing is
communicated, so that the numbers of a laptop do not depend on a process group.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist

from model_core.launch import free_port

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process among the `size` of the run."""

    rank: int
    size: int
    device: torch.device
    pids: tuple[int, ...] = ()
    """Process of each rank; 0 for one on another machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes events and files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Everybody's `value`, in the order of ranks; all must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, in place; all must call it with the same shape."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def is_alive(self, rank: int) -> bool:
        """Whether the process of `rank` is there, as far as can be seen from this machine."""
        pid = self.pids[rank] if self.pids else 0
        try:
            return pid == 0 or psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def is_first_alive(self) -> bool:
        """Whether every rank before this one is gone, so that this one tells the end."""
        return not any(self.is_alive(rank) for rank in range(self.rank))

    def barrier(self) -> None:
        """Waits for all."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leaves the process group, so that no rank ends while another still talks to it."""
        if dist.is_initialized():
            dist.destroy_process_group()


def join() -> World:
    """Joins the process group that the environment describes, by DeepSpeed's backend for this device.

    Raises nothing of ours: a rank that never comes ends all others after ten minutes.
    """
    import deepspeed
    import deepspeed.ops

    # On the CPU the first `init_distributed` compiles a shared-memory kernel for 50 s and fails without a compiler.
    # DeepSpeed asks this table whether the kernel can be had (deepspeed/comm/torch.py); an empty one says no, and
    # gloo does the work. The name is private to DeepSpeed: this is the only place that knows it.
    if not torch.cuda.is_available():
        vars(deepspeed.ops)["__compatible_ops__"] = {}
    without_compiler()
    if "RANK" not in os.environ:
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port())
        )
    deepspeed.init_distributed(verbose=False, timeout=_TIMEOUT)
    local_rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    return World(rank=dist.get_rank(), size=dist.get_world_size(), device=device, pids=_pids())


def without_compiler() -> None:
    """Keeps torch from importing its compiler, a second of every start, when the first optimizer is made.

    Torch marks the methods of optimizers as not to be compiled, by asking the compiler for a wrapper, which it looks for on
    the method first (torch/_compile.py); here the method itself is put there. Nothing in a trainer is compiled. The name is
    private to torch: this is the only place that knows it.
    """
    for method in vars(torch.optim.Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if inner is not None:
            vars(inner).setdefault("__dynamo_disable", inner)


def _pids() -> tuple[int, ...]:
    mine = (socket.gethostname(), os.getpid())
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, mine)
    return tuple(pid if host == mine[0] else 0 for host, pid in everybody)
