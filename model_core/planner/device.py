"""The parameters that one device holds under a layout, and which part of their optimizer's state.

Routed experts are split over the expert-parallel ranks and the rest is not; what a rank then holds alike with others is
shared out among those by ZeRO, so the two kinds have different numbers of sharers.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.config import ParallelConfig
from model_core.planner.dense import DenseModel
from model_core.planner.parameters import Shape, next_token_experts, parameters, split_attention


@dataclass(frozen=True)
class Held:
    """Numbers of parameters on a device, with how many devices hold the same ones."""

    dense: int
    experts: int
    dense_sharers: int
    expert_sharers: int

    @property
    def total(self) -> int:
        """All parameters of this device."""
        return self.dense + self.experts

    @property
    def shard(self) -> int:
        """Those whose states this device keeps when the sharers divide them."""
        return self.dense_shard + self.expert_shard

    @property
    def dense_shard(self) -> int:
        """Its part of what is no routed expert."""
        return -(-self.dense // self.dense_sharers)

    @property
    def expert_shard(self) -> int:
        """Its part of the routed experts that it holds."""
        return -(-self.experts // self.expert_sharers)


def held(config: Shape, parallel: ParallelConfig, blocks: range) -> Held:
    """The parameters of a device of the stage with `blocks`.

    Tensor-parallel ranks share the projections of heads and the inner widths of MLPs; the latents' projections, the router,
    norms, routed experts, embedding and head are whole on each. A student is whole on every device.
    """
    part = parameters(config, blocks)
    if isinstance(config, DenseModel):
        return Held(dense=part.trained, experts=0, dense_sharers=parallel.data, expert_sharers=1)
    experts = part.routed_experts + next_token_experts(config) * (part.next_token > 0)
    split = part.dense_mlp + part.shared_experts + len(blocks) * split_attention(config)
    whole = part.trained - experts - split
    return Held(
        dense=whole + split // parallel.tensor, experts=experts // parallel.expert,
        dense_sharers=parallel.data, expert_sharers=parallel.data // parallel.expert,
    )  # fmt: skip
