"""Documents that stand one after another in one row without padding, and the way to rows of their own and back.

Everything but attention works on tokens alone and so on no padding at all; attention spreads its queries, keys and values
to one row a document, where causality keeps documents apart. What several documents begin with alike, as the completions of
one prompt do, stands there once and is spread to each of their rows. Letters: N tokens in all, B documents, T longest of
them, S places where a token stands again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shared:
    """The places of tokens that stand in more than one row: `token_S` again at `place_S`; `counts_N` rows hold a token."""

    token_S: Tensor
    place_S: Tensor
    counts_N: Tensor


@dataclass(frozen=True)
class Packing:
    """Where the N tokens of one packed row lie among `num_rows` rows of `width` places; the rest of a row is padding."""

    place_N: Tensor
    positions_1N: Tensor
    num_rows: int
    width: int
    shared: Shared | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], *, prefixes: Sequence[int] | None = None, device: torch.device | None = None) -> Packing:
        """The packing of documents of these lengths, in this order. Every length is at least 1.

        With `prefixes` a document begins with so many tokens of the nearest one before it whose prefix is 0, and only the
        others stand in the packed row.
        """
        length_B, prefix_B = torch.tensor(lengths), torch.tensor(prefixes or [0] * len(lengths))
        own_B, width = length_B - prefix_B, max(lengths)
        starts_B = own_B.cumsum(0) - own_B
        row_N = torch.repeat_interleave(own_B)
        position_N = torch.arange(len(row_N)) - (starts_B - prefix_B)[row_N]
        shared = None
        if prefixes and any(prefixes):
            leader_B = torch.arange(len(lengths)).masked_fill(prefix_B > 0, 0).cummax(0).values
            row_S = torch.repeat_interleave(prefix_B)
            position_S = torch.arange(len(row_S)) - (prefix_B.cumsum(0) - prefix_B)[row_S]
            token_S = starts_B[leader_B[row_S]] + position_S
            counts_N = 1 + torch.bincount(token_S, minlength=len(row_N))
            shared = Shared(token_S.to(device), (row_S * width + position_S).to(device), counts_N.to(device))
        return cls((row_N * width + position_N).to(device), position_N[None].to(device), len(lengths), width, shared)

    def spread(self, x_1N: Tensor) -> Tensor:
        """(1, N, …) to (B, T, …); padding is zero."""
        flat: Tensor = _Spread.apply(x_1N[0], self)  # type: ignore[no-untyped-call]
        return flat.view(self.num_rows, self.width, *x_1N.shape[2:])

    def together(self, x_BT: Tensor) -> Tensor:
        """(B, T, …) back to (1, N, …); what stands in several rows is taken from the first, for it is alike in all."""
        return x_BT.flatten(0, 1).index_select(0, self.place_N).unsqueeze(0)

    def in_rows(self, x_N: Tensor) -> tuple[Tensor, Tensor]:
        """Each token as often as it stands in a row, and the number of that row."""
        row_N = self.place_N // self.width
        if self.shared is None:
            return x_N, row_N
        again_S, row_S = x_N.index_select(0, self.shared.token_S), self.shared.place_S // self.width
        return torch.cat([x_N, again_S]), torch.cat([row_N, row_S])


class _Spread(torch.autograd.Function):
    """`index_copy` into zeros, which keeps nothing but the places for the backward pass; torch's own keeps its source."""

    @staticmethod
    def forward(ctx: Any, x_N: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        out = x_N.new_zeros(packing.num_rows * packing.width, *x_N.shape[1:]).index_copy_(0, packing.place_N, x_N)
        shared = packing.shared
        return out if shared is None else out.index_copy_(0, shared.place_S, x_N.index_select(0, shared.token_S))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        packing, shared = ctx.packing, ctx.packing.shared
        grad_N = grads[0].index_select(0, packing.place_N)
        return (grad_N if shared is None else grad_N.index_add_(0, shared.token_S, grads[0].index_select(0, shared.place_S))), None
