"""Sequences of prompt and completion tokens, packed in one row without padding, in forward passes of bounded size.

Letters: N tokens of all sequences, M targets.
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


def pack_answers(sequences: Sequence[tuple[list[int], list[int]]], *, device: torch.device | None = None) -> PackedBatch:
    """`pack_batch` in which answers to one prompt that stand beside each other share its tokens, which are there once.

    No prompt and no completion is empty. There is nothing for multi-token prediction: what follows a prompt differs.
    """
    tokens: list[int] = []
    lengths: list[int] = []
    prefixes: list[int] = []
    at: list[int] = []
    targets: list[int] = []
    known: list[int] | None = None
    end = 0  # of the shared prompt, among the tokens
    for prompt, completion in sequences:
        assert prompt and completion, "nothing is shared without a prompt, nothing asked without a completion"
        is_shared = prompt == known
        if not is_shared:
            tokens += prompt
            known, end = prompt, len(tokens)
        at += [end - 1, *range(len(tokens), len(tokens) + len(completion) - 1)]
        targets += completion
        tokens += completion[:-1]
        prefixes.append(len(prompt) if is_shared else 0)
        lengths.append(len(prompt) + len(completion) - 1)
    made = [torch.tensor(values, dtype=torch.long, device=device) for values in (tokens, at, targets, [], [])]
    return PackedBatch(made[0][None], Packing.of(lengths, prefixes=prefixes, device=device), *made[1:])


def split_by_size(
    lengths: Sequence[int], *, max_tokens: int, size: int = 1, groups: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices in passes of at most `max_tokens` padded tokens (one sequence at least) on each of `size` ranks, longest first.

    Neighbours have like lengths, so that little is padded; with the `groups` of the sequences those of a group are neighbours.
    """
    longest: dict[int, int] = {}
    for length, group in zip(lengths, groups or (), strict=False):
        longest[group] = max(length, longest.get(group, 0))
    keys = [(-longest[group], group) for group in groups] if groups else [(0, 0)] * len(lengths)
    passes: list[list[int]] = []
    widest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (*keys[i], -lengths[i], i)):
        num_of_rank = len(passes[-1]) // size + 1 if passes else 0  # with this one more, of the rank that has most
        if passes and (num_of_rank * max(widest, lengths[index]) <= max_tokens or num_of_rank == 1):
            passes[-1].append(index)
            widest = max(widest, lengths[index])
        else:
            passes.append([index])
            widest = lengths[index]
    return passes


def passes_of_rank(
    lengths: Sequence[int], *, max_tokens: int, rank: int, size: int, groups: Sequence[int] | None = None
) -> list[tuple[list[int], bool]]:
    """The forward passes of one rank as (indices, whether they count); every rank gets equally many.

    A rank without a sequence in some pass runs one that does not count: split experts make all ranks wait for all. Each rank
    has its share of a pass in one piece, where there are `groups`, so that it has most of a group.
    """
    together = split_by_size(lengths, max_tokens=max_tokens, size=size, groups=groups)
    if groups is None:
        own = [indices[rank::size] for indices in together]
    else:
        own = [indices[len(indices) * rank // size : len(indices) * (rank + 1) // size] for indices in together]
    return [(mine, True) if mine else (indices[:1], False) for mine, indices in zip(own, together, strict=True)]
