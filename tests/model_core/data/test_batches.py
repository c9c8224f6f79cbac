"""Order, padding and splitting of batches."""

from hypothesis import given
from hypothesis import strategies as st

from model_core.data.batches import pack_answers, pack_batch, passes_of_rank, split_by_size
from model_core.data.order import indices_of_step
from tests.model_core.reference.padded import make_batch

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 5))
def test_every_pass_over_the_data_takes_each_example_once(num_examples: int, batch_size: int, seed: int) -> None:
    num_steps = -(-2 * num_examples // batch_size)
    taken = [i for step in range(num_steps) for i in indices_of_step(
        step, num_examples=num_examples, batch_size=batch_size, seed=seed)]
    for epoch in range(2):
        assert sorted(taken[epoch * num_examples : (epoch + 1) * num_examples]) == list(range(num_examples))


def test_order_depends_on_the_step_alone() -> None:
    later = [indices_of_step(7, num_examples=100, batch_size=16, seed=3) for _ in range(2)]
    assert later[0] == later[1] != indices_of_step(7, num_examples=100, batch_size=16, seed=4)


@given(LENGTHS, st.integers(1, 200))
def test_passes_hold_all_and_stay_small(lengths: list[int], max_tokens: int) -> None:
    passes = split_by_size(lengths, max_tokens=max_tokens)
    assert sorted(i for indices in passes for i in indices) == list(range(len(lengths)))
    for indices in passes:
        assert len(indices) == 1 or len(indices) * max(lengths[i] for i in indices) <= max_tokens


@given(LENGTHS, st.integers(1, 4))
def test_ranks_share_everything_in_equally_many_passes(lengths: list[int], size: int) -> None:
    ranks = [passes_of_rank(lengths, max_tokens=60, rank=rank, size=size) for rank in range(size)]
    assert len({len(passes) for passes in ranks}) == 1
    counted = [i for passes in ranks for indices, counts in passes if counts for i in indices]
    assert sorted(counted) == list(range(len(lengths)))


def test_mask_is_on_the_targets_of_the_completion() -> None:
    batch = make_batch([([1, 2], [3, 4]), ([5], [6])], pad=0)
    assert batch.tokens_BT.tolist() == [[1, 2, 3], [5, 6, 0]]
    assert batch.targets_BT.tolist() == [[2, 3, 4], [6, 0, 0]]
    assert batch.mask_BT.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.real_BT.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_packed_batch_asks_for_the_completions_tokens_and_nothing_crosses_documents() -> None:
    batch = pack_batch([([1, 2], [3, 4]), ([5], [6]), ([], [7, 8, 9])])
    assert batch.tokens_1N.tolist() == [[1, 2, 3, 5, 7, 8]]
    assert batch.at_M.tolist() == [1, 2, 3, 4, 5] and batch.targets_M.tolist() == [3, 4, 6, 8, 9]
    assert batch.next_at_M.tolist() == [0, 1, 4] and batch.next_targets_M.tolist() == [3, 4, 9]
    assert batch.packing.positions_1N.tolist() == [[0, 1, 2, 0, 0, 1]]


SEQUENCES = st.lists(st.tuples(st.lists(st.integers(1, 9), max_size=6), st.lists(st.integers(1, 9), min_size=2, max_size=6)),
                     min_size=1, max_size=8)


@given(SEQUENCES)
def test_packed_and_padded_ask_for_the_same(sequences: list[tuple[list[int], list[int]]]) -> None:
    packed, padded = pack_batch(sequences), make_batch(sequences, pad=0)
    assert packed.targets_M.tolist() == padded.targets_BT[padded.mask_BT.bool()].tolist()
    assert packed.tokens_1N.numel() == int(padded.real_BT.sum())
    assert packed.packing.together(padded.tokens_BT).tolist() == packed.tokens_1N.tolist()


def test_answers_to_one_prompt_have_it_once() -> None:
    batch = pack_answers([([1, 2], [3, 4]), ([1, 2], [5]), ([1, 2], [6, 7, 8]), ([9], [6]), ([1, 2], [4, 4])])
    assert batch.tokens_1N.tolist() == [[1, 2, 3, 6, 7, 9, 1, 2, 4]]
    assert batch.at_M.tolist() == [1, 2, 1, 1, 3, 4, 5, 7, 8] and batch.targets_M.tolist() == [3, 4, 5, 6, 7, 8, 6, 4, 4]
    assert batch.packing.positions_1N.tolist() == [[0, 1, 2, 2, 3, 0, 0, 1, 2]]
    assert batch.packing.spread(batch.tokens_1N).tolist() == [[1, 2, 3, 0], [1, 2, 0, 0], [1, 2, 6, 7], [9, 0, 0, 0], [1, 2, 4, 0]]
    assert batch.packing.shared is not None and batch.packing.shared.counts_N.tolist() == [3, 3, 1, 1, 1, 1, 1, 1, 1]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4)), min_size=1, max_size=60), st.integers(1, 200), st.integers(1, 3))
def test_passes_keep_groups_together(sequences: list[tuple[int, int]], max_tokens: int, size: int) -> None:
    lengths, groups = [length for length, _group in sequences], [group for _length, group in sequences]
    together = split_by_size(lengths, max_tokens=max_tokens, size=size, groups=groups)
    order = [groups[i] for indices in together for i in indices]
    assert len(order) == len(sequences) and all(order.count(g) == order[order.index(g) :][: order.count(g)].count(g) for g in order)
    ranks = [passes_of_rank(lengths, max_tokens=max_tokens, rank=rank, size=size, groups=groups) for rank in range(size)]
    for whole, parts in zip(together, zip(*ranks, strict=True), strict=True):
        assert [i for indices, counts in parts if counts for i in indices] == whole
        assert all(len(own) == 1 or len(own) * max(lengths[i] for i in own) <= max_tokens for own, _counts in parts)
