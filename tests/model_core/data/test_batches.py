"""Order, padding and splitting of batches."""

from hypothesis import given
from hypothesis import strategies as st

from model_core.data.batches import make_batch, passes_of_rank, split_by_size
from model_core.data.order import indices_of_step

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
