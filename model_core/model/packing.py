"""Documents that stand one after another in one row without padding, and the way to rows of their own and back.

Everything but attention works on tokens alone and so on no padding at all; attention spreads its queries, keys and values
to one row a document, where causality keeps documents apart. Letters: N tokens in all, B documents, T longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the N tokens of one packed row lie among `num_rows` rows of `width` places; the rest of a row is padding."""

    place_N: Tensor
    positions_1N: Tensor
    num_rows: int
    width: int

    @classmethod
    def of(cls, lengths: Sequence[int], *, device: torch.device | None = None) -> Packing:
        """The packing of documents of these lengths, in this order. Every length is at least 1."""
        width = max(lengths)
        row_N = torch.repeat_interleave(torch.tensor(lengths))
        starts_B = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        position_N = torch.arange(len(row_N)) - starts_B[row_N]
        return cls((row_N * width + position_N).to(device), position_N[None].to(device), len(lengths), width)

    def spread(self, x_1N: Tensor) -> Tensor:
        """(1, N, …) to (B, T, …); padding is zero."""
        flat: Tensor = _Spread.apply(x_1N[0], self.place_N, self.num_rows * self.width)  # type: ignore[no-untyped-call]
        return flat.view(self.num_rows, self.width, *x_1N.shape[2:])

    def together(self, x_BT: Tensor) -> Tensor:
        """(B, T, …) back to (1, N, …)."""
        return x_BT.flatten(0, 1).index_select(0, self.place_N).unsqueeze(0)


class _Spread(torch.autograd.Function):
    """`index_copy` into zeros, which keeps nothing but the places for the backward pass; torch's own keeps its source."""

    @staticmethod
    def forward(ctx: Any, x_N: Tensor, place_N: Tensor, num_places: int) -> Tensor:
        ctx.save_for_backward(place_N)
        return x_N.new_zeros(num_places, *x_N.shape[1:]).index_copy_(0, place_N, x_N)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (place_N,) = ctx.saved_tensors
        return grads[0].index_select(0, place_N), None, None
