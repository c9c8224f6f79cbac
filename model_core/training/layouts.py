"""How the processes of a run stand to each other, and what their machine must have for it.

Rules between settings are in `model_core.config.combinations`, those about a model's shape in `model_core.planner.layouts`.
Ranks are ordered as DeepSpeed orders them: in a pipeline all ranks of one stage come before those of the next;
tensor-parallel ranks of one group are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model_core.config import ParallelConfig, RunConfig
from model_core.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """Which part of a batch a rank works on: number `rank` of `size`. Ranks that split a model have the same part."""

    rank: int
    size: int
    is_teller: bool
    """Whether this rank counts its part's tokens and loss; one of those that have the same part does."""


def share_of(parallel: ParallelConfig, rank: int) -> Share:
    """The part of `rank`. In a pipeline the last stage tells, because it alone sees the loss."""
    if parallel.pipeline > 1:
        stage, number = divmod(rank, parallel.data)
        return Share(number, parallel.data, is_teller=stage == parallel.pipeline - 1)
    number, place = divmod(rank, parallel.tensor)
    return Share(number, parallel.data, is_teller=place == 0)


def check_parallel(config: RunConfig) -> None:
    """Raises ConfigError for what this machine has not."""
    if config.parallel.offload != "none" and not torch.cuda.is_available():
        raise ConfigError(
            f"offload is {config.parallel.offload}, but this machine has no GPU whose memory it could spare; set it to none.",
            field="parallel.offload",
        )
