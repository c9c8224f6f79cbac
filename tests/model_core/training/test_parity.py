"""Five steps under every layout are five steps of one process: losses, norms, loads, routing biases and weights.

In float32 with plain SGD, with clipping at work in every step, layer-wise rates, sequences of very unequal length, and
one batch with fewer sequences than there are groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model_core.reference import plain_training
from tests.model_core.training.parity import RECIPE, Case, batches, largest_difference, names, run_ranks, train_case

TOLERANCE = 2e-6
GROUPS = {"n_group": 2, "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 2.5}
V2 = {"scoring_func": "softmax", "topk_method": "group_limited_greedy", **GROUPS}
TIED = {"tie_word_embeddings": True, "q_lora_rank": 8}
CASES = [
    Case({"num_processes": 2, "zero_stage": 1}), Case({"num_processes": 2, "zero_stage": 2}),
    Case({"num_processes": 2, "zero_stage": 3}, TIED, {"gradient_checkpointing": True}),
    Case({"num_processes": 2, "expert": 2}, GROUPS),
    Case({"num_processes": 2, "pipeline": 2}, TIED, {"gradient_checkpointing": True}),
    Case({"num_processes": 2, "tensor": 2}, {"q_lora_rank": 8}),
    Case({"num_processes": 4, "pipeline": 2, "expert": 2}, V2),
]
MORE = [Case({"num_processes": 2, "expert": 2, "zero_stage": 3}, V2), Case({"num_processes": 4, "tensor": 2, "zero_stage": 3})]


def each(often: list[Case], seldom: list[Case]) -> pytest.MarkDecorator:
    """A test for every case; those that put together what stands alone in another are slow ones."""
    rare = [pytest.param(case, marks=pytest.mark.slow) for case in seldom]
    return pytest.mark.parametrize("case", [*often, *rare], ids=names([*often, *seldom]))


@each(CASES, MORE)
def test_a_layout_changes_nothing(case: Case, tmp_path: Path) -> None:
    model = case.model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses, norms = plain_training.train(model, batches(), RECIPE)
    assert min(norms) > 2 * RECIPE.clip_norm and largest_difference(before, model.state_dict()) > 0.01
    ranks: list[dict[str, Any]] = run_ranks(train_case, case, num=case.parallel["num_processes"], directory=tmp_path / "ranks")
    for rank in ranks:
        assert rank["losses"] == pytest.approx(losses, abs=TOLERANCE)
        assert rank["norms"] == pytest.approx(norms, abs=2e-5)
        assert largest_difference(rank["state"], model.state_dict()) <= TOLERANCE
        assert rank["biases"] == ranks[0]["biases"]
        for loads_LE, batch in zip(rank["loads"], batches(), strict=True):
            num_tokens = sum(len(prompt) + len(completion) - 1 for prompt, completion in batch)
            assert set(loads_LE.sum(dim=1).tolist()) == {case.parallel.get("tensor", 1) * 2.0 * num_tokens}
    assert all(torch.equal(a, b) for a, b in zip(ranks[0]["state"].values(), ranks[-1]["state"].values(), strict=True))


HALF = [
    Case({"num_processes": 2, "tensor": 2}, precision={"dtype": "bfloat16"}),
    Case({"num_processes": 2, "expert": 2}, precision={"dtype": "float16"}),
]
MORE_HALF = [
    Case({"num_processes": 2, "zero_stage": 3}, precision={"dtype": "bfloat16"}),
    Case({"num_processes": 4, "pipeline": 2, "expert": 2}, precision={"dtype": "bfloat16"}),
    Case({"num_processes": 2, "zero_stage": 3}, precision={"dtype": "float16"}),
]


@each(HALF, MORE_HALF)
def test_half_precision_differs_by_its_rounding_only(case: Case, tmp_path: Path) -> None:
    """By one unit of its eight or eleven bits at the size of the loss, which is about 3; a wrong scale would be far outside."""
    num_bits = {"bfloat16": 8, "float16": 11}[case.precision["dtype"]]
    losses, _norms = plain_training.train(case.model(), batches(), RECIPE)
    for rank in run_ranks(train_case, case, num=case.parallel["num_processes"], directory=tmp_path / "ranks"):
        assert rank["losses"] == pytest.approx(losses, abs=3 * 2.0**-num_bits)
