"""Which examples a step takes: a function of seed and step, so that a resumed run goes on in the same order."""

from __future__ import annotations

from functools import lru_cache

import torch


def indices_of_step(step: int, *, num_examples: int, batch_size: int, seed: int) -> list[int]:
    """Indices of batch `step`. Each pass over the examples is a new permutation; a batch may span two passes."""
    taken: list[int] = []
    position = step * batch_size
    while len(taken) < batch_size:
        epoch, offset = divmod(position + len(taken), num_examples)
        order = _permutation(epoch, num_examples, seed)
        taken += order[offset : offset + batch_size - len(taken)]
    return taken


@lru_cache(maxsize=2)
def _permutation(epoch: int, num_examples: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(num_examples, generator=generator).tolist())
