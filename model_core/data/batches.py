"""Sequences of prompt and completion tokens as tensors, packed or padded, split into forward passes of bounded size.

Letters: B sequences, T positions, N tokens of all sequences, M targets. A packed batch is one row without padding; in a
padded one padding stands on the right, so that causal attention never sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.model.packing import Packing


@dataclass(frozen=True)
class PackedBatch:
    """One row of documents; what must be said at the places `at_M` is `targets_M`, the completions' tokens in order.

    `next_at_M` and `next_targets_M` are the same for the token after the next (multi-token prediction).
    """

    tokens_1N: Tensor
    packing: Packing
    at_M: Tensor
    targets_M: Tensor
    next_at_M: Tensor
    next_targets_M: Tensor


def pack_batch(sequences: Sequence[tuple[list[int], list[int]]], *, device: torch.device | None = None) -> PackedBatch:
    """Packs (prompt, completion); each must have two tokens in all at least. The last token of each is only a target."""
    tokens: list[int] = []
    lengths: list[int] = []
    places: dict[int, tuple[list[int], list[int]]] = {1: ([], []), 2: ([], [])}
    for prompt, completion in sequences:
        document = [*prompt, *completion]
        assert len(document) > 1, "a document of one token has nothing to predict"
        for ahead, (at, targets) in places.items():
            first = max(len(prompt), ahead)
            at += [len(tokens) + place - ahead for place in range(first, len(document))]
            targets += document[first:]
        tokens += document[:-1]
        lengths.append(len(document) - 1)
    (at, targets), (next_at, next_targets) = places[1], places[2]
    made = [torch.tensor(values, dtype=torch.long, device=device) for values in (tokens, at, targets, next_at, next_targets)]
    return PackedBatch(made[0][None], Packing.of(lengths, device=device), *made[1:])


@dataclass(frozen=True)
class Batch:
    """`tokens_BT` is what the model reads, `targets_BT` what it must say next; only targets under `mask_BT` count.

    `real_BT` is 1 where the next token is not padding either: what a row's last token is routed to decides nothing.
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    mask_BT: Tensor
    real_BT: Tensor


def make_batch(
    sequences: Sequence[tuple[list[int], list[int]]], *, pad: int, device: torch.device | None = None
) -> Batch:
    """One padded batch of (prompt, completion); the mask is 1 where the target is a token of the completion."""
    longest = max(len(prompt) + len(completion) for prompt, completion in sequences)
    tokens_BT = torch.full((len(sequences), longest), pad)
    mask_BT = torch.zeros(len(sequences), longest)
    real_BT = torch.zeros(len(sequences), longest)
    for row, (prompt, completion) in enumerate(sequences):
        end = len(prompt) + len(completion)
        tokens_BT[row, :end] = torch.tensor(prompt + completion)
        mask_BT[row, len(prompt) : end] = 1.0
        real_BT[row, :end] = 1.0
    parts = tokens_BT[:, :-1], tokens_BT[:, 1:], mask_BT[:, 1:], real_BT[:, 1:]
    return Batch(*(part.contiguous().to(device) for part in parts))


def split_by_size(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Indices in passes of at most `max_tokens` padded tokens (one sequence at least), longest first.

    Neighbours have like lengths, so that little is padded.
    """
    passes: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if passes and (len(passes[-1]) + 1) * lengths[passes[-1][0]] <= max_tokens:
            passes[-1].append(index)
        else:
            passes.append([index])
    return passes


def passes_of_rank(lengths: Sequence[int], *, max_tokens: int, rank: int, size: int) -> list[tuple[list[int], bool]]:
    """The forward passes of one rank as (indices, whether they count); every rank gets equally many.

    A rank without a sequence in some pass runs one that does not count: split experts make all ranks wait for all.
    """
    together = split_by_size(lengths, max_tokens=max_tokens * size)
    own = [indices[rank::size] for indices in together]
    return [(mine, True) if mine else (indices[:1], False) for mine, indices in zip(own, together, strict=True)]
