"""Serves a student with continuous batching: requests join and leave between decoding steps, as for our own model.

The rows that run share one cache of transformers, padded on the left to the longest of them; whoever joins is read alone
and set beside the others. That copies the cache once a request, little beside the decoding of an answer.
Letters: B rows, T tokens, H heads, S cached tokens, K head width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from model_core.rollout.stream import StreamingSampler

Blocks = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, both BHSK."""


class StudentStream(StreamingSampler):
    """`StreamingSampler` of a student."""

    def _begin_rows(self) -> None:
        self._blocks: Blocks = []
        self._mask_BS = torch.zeros(0, 0, dtype=torch.long, device=self.device)

    def _read(self, prompt_1T: Tensor) -> Tensor:
        mask_1T = torch.ones_like(prompt_1T)
        cache = DynamicCache()
        logits_1V: Tensor = self.model.step(prompt_1T, mask=mask_1T, positions_BT=mask_1T.cumsum(dim=1) - 1, cache=cache)
        alone = _blocks_of(cache)
        if not len(self._mask_BS):
            self._blocks, self._mask_BS = alone, mask_1T
            return logits_1V
        width = max(self._mask_BS.shape[1], mask_1T.shape[1])
        self._mask_BS = torch.cat([_wider(self._mask_BS, width, dim=1), _wider(mask_1T, width, dim=1)])
        self._blocks = [
            (torch.cat([_wider(k, width), _wider(other_k, width)]), torch.cat([_wider(v, width), _wider(other_v, width)]))
            for (k, v), (other_k, other_v) in zip(self._blocks, alone, strict=True)
        ]
        return logits_1V

    def _next_logits(self, tokens_B1: Tensor) -> Tensor:
        positions_B1 = self._mask_BS.sum(dim=1, keepdim=True)
        self._mask_BS = torch.cat([self._mask_BS, torch.ones_like(tokens_B1)], dim=1)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._blocks):
            cache.update(keys, values, layer)
        logits_BV: Tensor = self.model.step(tokens_B1, mask=self._mask_BS, positions_BT=positions_B1, cache=cache)
        self._blocks = _blocks_of(cache)
        return logits_BV

    def _move(self, rows: list[int]) -> None:
        """Also cuts off what is padding in all rows that are left."""
        which_B = torch.tensor(rows, dtype=torch.long, device=self.device)
        mask_BS = self._mask_BS[which_B]
        first = self._mask_BS.shape[1] - (int(mask_BS.sum(dim=1).max()) if rows else 0)
        self._mask_BS = mask_BS[:, first:]
        self._blocks = [(k[which_B, :, first:], v[which_B, :, first:]) for k, v in self._blocks]


def _blocks_of(cache: DynamicCache) -> Blocks:
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def _wider(tensor: Tensor, width: int, *, dim: int = 2) -> Tensor:
    """Zeros before what is there, up to `width` in dimension `dim`."""
    missing = width - tensor.shape[dim]
    return pad(tensor, [*([0, 0] * (tensor.ndim - 1 - dim)), missing, 0])
