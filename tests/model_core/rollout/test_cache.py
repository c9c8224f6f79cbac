"""The latent cache: rows are found again wherever they were moved, and none disturbs another."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.rollout.batch import padded
from model_core.rollout.cache import LatentCache
from tests.model_core.rollout.shapes import PAD, named, prompts


def filled(num_rows: int, num_tokens: int = 12) -> LatentCache:
    """Each number tells its row and its token."""
    cache = LatentCache(named("plain"), num_rows, num_tokens)
    for row in range(num_rows):
        for layer, block in enumerate(cache.layers):
            block[row] = (torch.arange(num_tokens)[:, None] + 100.0 * row + 1000 * layer).expand_as(block[row])
        cache.filled_B[row] = 1 + row % num_tokens
    cache.measure(num_rows)
    return cache


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8))
def test_any_rows_may_be_moved_to_the_front_at_once(which: list[int]) -> None:
    """Also when a row is read after it was written over: what is read is what was there before."""
    cache, before = filled(8), filled(8)
    cache.take(torch.arange(len(which)), cache, torch.tensor(which))
    assert cache.filled_B[: len(which)].tolist() == [1 + row for row in which]
    for block, other in zip(cache.layers, before.layers, strict=True):
        for target, source in enumerate(which):
            length = 1 + source
            assert torch.equal(block[target, :length], other[source, :length])
        assert torch.equal(block[len(which) :], other[len(which) :])
    cache.measure(len(which))
    assert cache.longest == 1 + max(which)


def test_rows_come_from_another_cache_that_is_shorter() -> None:
    cache, other = filled(5, 12), filled(3, 6)
    before = [block.clone() for block in cache.layers]
    cache.take(torch.tensor([4, 1]), other, torch.tensor([2, 2]))
    for block, old, source in zip(cache.layers, before, other.layers, strict=True):
        assert torch.equal(block[[4, 1], : other.longest], source[[2, 2], : other.longest])
        assert torch.equal(block[[0, 2, 3]], old[[0, 2, 3]])
    assert cache.filled_B.tolist() == [1, 3, 3, 4, 3] and cache.longest == 5


def test_the_longest_is_of_the_rows_in_use() -> None:
    cache = filled(4)
    for num, longest in ((4, 4), (2, 2), (1, 1), (0, 0)):
        cache.measure(num)
        assert cache.longest == longest


@pytest.mark.parametrize("has_draft", [False, True])
def test_what_the_model_gives_is_stored(has_draft: bool) -> None:
    model, given = named("plain"), prompts(3)
    tokens_BT, lengths_B = padded(given, PAD, torch.device("cpu"))
    cache = LatentCache(model, 4, 20, has_draft=has_draft)
    assert len(cache.layers) == len(model.blocks) + has_draft and cache.num_rows == 4
    with torch.no_grad():
        _hidden, latents = model.hidden(tokens_BT)
    cache.fill(latents, lengths_B)
    for block, latent in zip(cache.layers, latents, strict=False):
        assert torch.equal(block[:3, : latent.shape[1]], latent)
        assert not block[3].any() and not block[:, latent.shape[1] :].any()
    assert cache.filled_B.tolist() == [*map(len, given), 0] and cache.longest == max(map(len, given))
    assert float(cache.open) == 0.0 and float(cache.closed) == -math.inf


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_padding_stands_on_the_right_and_the_lengths_are_told(given: list[list[int]]) -> None:
    tokens_PT, lengths_P = padded(given, 0, torch.device("cpu"))
    assert [row[:length].tolist() for row, length in zip(tokens_PT, lengths_P, strict=True)] == given
    assert all(not row[length:].any() for row, length in zip(tokens_PT, lengths_P, strict=True))
