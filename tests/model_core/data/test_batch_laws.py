"""Batches against the obvious loops over documents, and the order of examples against whole permutations one after another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.data.batches import pack_batch, passes_of_rank, split_by_size
from model_core.data.order import indices_of_step
from tests.model_core.reference.padded import make_batch

TOKENS = st.lists(st.integers(1, 9), max_size=6)
DOCUMENTS = st.lists(st.tuples(TOKENS, TOKENS).filter(lambda d: len(d[0]) + len(d[1]) > 1), min_size=1, max_size=6)
LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def wanted(documents: list[tuple[list[int], list[int]]], ahead: int) -> list[tuple[int, int]]:
    """(place in the packed row, token of the completion that is so far ahead of it), document after document."""
    pairs, start = list[tuple[int, int]](), 0
    for prompt, completion in documents:
        document = prompt + completion
        pairs += [(start + place - ahead, token) for place, token in enumerate(document) if place >= max(ahead, len(prompt))]
        start += len(document) - 1
    return pairs


@settings(deadline=None)
@given(DOCUMENTS)
def test_a_packed_batch_asks_for_what_the_obvious_loop_asks_for(documents: list[tuple[list[int], list[int]]]) -> None:
    batch = pack_batch(documents)
    assert batch.tokens_1N.tolist() == [[token for prompt, completion in documents for token in (prompt + completion)[:-1]]]
    assert list(zip(batch.at_M.tolist(), batch.targets_M.tolist(), strict=True)) == wanted(documents, 1)
    assert list(zip(batch.next_at_M.tolist(), batch.next_targets_M.tolist(), strict=True)) == wanted(documents, 2)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(10, 12))
def test_a_padded_batch_is_each_document_with_padding_behind_it(documents: list[tuple[list[int], list[int]]], pad: int) -> None:
    batch = make_batch(documents, pad=pad)
    width = max(len(prompt) + len(completion) for prompt, completion in documents)
    for row, (prompt, completion) in enumerate(documents):
        document = prompt + completion
        padded = document + [pad] * (width - len(document))
        assert batch.tokens_BT[row].tolist() == padded[:-1] and batch.targets_BT[row].tolist() == padded[1:]
        assert batch.mask_BT[row].tolist() == [float(len(prompt) <= place < len(document)) for place in range(1, width)]
        assert batch.real_BT[row].tolist() == [float(place < len(document)) for place in range(1, width)]


@pytest.mark.parametrize("document", [([], []), ([1], []), ([], [1])])
def test_a_document_with_nothing_to_predict_is_our_mistake(document: tuple[list[int], list[int]]) -> None:
    with pytest.raises(AssertionError, match="nothing to predict"):
        pack_batch([([1, 2], [3]), document])


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 200))
def test_passes_go_from_long_to_short_and_none_could_take_one_more(lengths: list[int], max_tokens: int) -> None:
    passes = split_by_size(lengths, max_tokens=max_tokens)
    order = [lengths[index] for indices in passes for index in indices]
    assert order == sorted(order, reverse=True)
    assert all((len(indices) + 1) * lengths[indices[0]] > max_tokens for indices in passes[:-1])


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4), st.integers(1, 100))
def test_ranks_work_on_the_same_pass_at_the_same_time_and_share_it_evenly(lengths: list[int], size: int, max_tokens: int) -> None:
    ranks = [passes_of_rank(lengths, max_tokens=max_tokens, rank=rank, size=size) for rank in range(size)]
    for together, parts in zip(split_by_size(lengths, max_tokens=max_tokens, size=size), zip(*ranks, strict=True), strict=True):
        counted = [indices for indices, counts in parts if counts]
        assert sorted(index for indices in counted for index in indices) == sorted(together)
        assert all(len(indices) == 1 or len(indices) * max(lengths[i] for i in indices) <= max_tokens for indices in counted)
        assert max(map(len, counted)) - min((len(indices) if counts else 0) for indices, counts in parts) <= 1
        assert all(len(indices) == 1 and indices[0] in together for indices, counts in parts if not counts)
    assert passes_of_rank(lengths, max_tokens=max_tokens, rank=0, size=1) == [(p, True) for p in split_by_size(lengths, max_tokens=max_tokens)]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_the_order_is_one_stream_however_it_is_cut_into_batches(num_examples: int, one: int, other: int, seed: int) -> None:
    def stream(batch_size: int) -> list[int]:
        steps = range(-(-3 * num_examples // batch_size))
        return [i for s in steps for i in indices_of_step(s, num_examples=num_examples, batch_size=batch_size, seed=seed)][: 3 * num_examples]

    assert stream(one) == stream(other) == stream(num_examples)


def test_each_pass_and_each_seed_has_an_order_of_its_own() -> None:
    orders = [tuple(indices_of_step(step, num_examples=50, batch_size=50, seed=seed)) for step in range(4) for seed in range(4)]
    assert len(set(orders)) == len(orders) and all(sorted(order) == list(range(50)) for order in orders)
