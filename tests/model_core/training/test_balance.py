"""The load of an expert is the real tokens that it got in the forward passes that count, each once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_core.config import ModelConfig
from model_core.data.batches import PackedBatch, pack_answers, pack_batch
from model_core.model import Transformer
from model_core.training.balance import ExpertBalance
from model_core.training.engine import checkpoint_blocks
from model_core.training.world import World
from tests.model_core.reference.padded import Batch, make_batch

SHORT, LONG = ([1, 2], [3]), ([4, 5, 6, 7], [8, 9, 10, 11])
CONFIG = ModelConfig(vocab_size=12, hidden_size=32, intermediate_size=48, moe_intermediate_size=16)


def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(CONFIG).train()


def loads(batches: list[Batch], *, weight: float = 1.0, recompute: bool = False) -> Tensor:
    made = model()
    balance = ExpertBalance(made, World(0, 1, torch.device("cpu")))
    if recompute:
        checkpoint_blocks(made)
    for batch in batches:
        made(batch.tokens_BT, attention_mask=batch.real_BT * weight).sum().backward()
    return balance.take_loads()


def test_padding_is_no_load() -> None:
    together, apart = loads([make_batch([LONG, SHORT], pad=0)]), loads([make_batch([LONG], pad=0), make_batch([SHORT], pad=0)])
    assert torch.equal(together, apart)
    num_tokens = (len(LONG[0] + LONG[1]) - 1) + (len(SHORT[0] + SHORT[1]) - 1)
    assert together.sum(dim=1).tolist() == [num_tokens * CONFIG.num_experts_per_tok] * 2


def test_what_is_computed_again_is_counted_once() -> None:
    batch = make_batch([LONG, SHORT], pad=0)
    assert torch.equal(loads([batch], recompute=True), loads([batch]))


def test_a_pass_that_does_not_count_and_sampling_are_no_load() -> None:
    assert loads([make_batch([LONG], pad=0)], weight=0.0).sum() == 0
    made = model()
    balance = ExpertBalance(made, World(0, 1, torch.device("cpu")))
    with torch.no_grad():
        made.hidden(torch.ones(2, 5, dtype=torch.long))
        made(torch.ones(2, 5, dtype=torch.long))
    assert balance.take_loads().sum() == 0


def test_the_bias_falls_where_much_is_routed() -> None:
    balance = ExpertBalance(model(), World(0, 1, torch.device("cpu")))
    balance.move(torch.tensor([[9.0, *[1.0] * 7]] * 2), 0.5)
    assert balance.biases() == [pytest.approx([-0.5, *[0.5] * 7])] * 2


def test_an_even_sequence_costs_one_a_layer_and_a_crowded_one_more() -> None:
    made = model()
    balance = ExpertBalance(made, World(0, 1, torch.device("cpu")), wants_loss=True)
    for gate in (layer.mlp.gate for layer in made.blocks[1:]):
        torch.nn.init.zeros_(gate.weight)  # equal scores: every expert has the same share, whoever is chosen
    batch = pack_batch([LONG, SHORT])
    made(batch.tokens_1N, attention_mask=torch.ones_like(batch.tokens_1N), packing=batch.packing)
    assert balance.take_loss().item() == pytest.approx(2 * 2, rel=1e-5)  # type: ignore[union-attr]
    assert balance.take_loss() == 0.0
    for gate in (layer.mlp.gate for layer in made.blocks[1:]):
        torch.nn.init.normal_(gate.weight, std=2.0)
    made(batch.tokens_1N, attention_mask=torch.ones_like(batch.tokens_1N), packing=batch.packing)
    assert balance.take_loss().item() > 4.2  # type: ignore[union-attr]


def balance_gradient(*, packed: bool, recompute: bool = False) -> Tensor:
    made = model()
    balance = ExpertBalance(made, World(0, 1, torch.device("cpu")), wants_loss=True)
    if recompute:
        checkpoint_blocks(made)
    if packed:
        batch = pack_batch([LONG, SHORT])
        logits = made(batch.tokens_1N, attention_mask=torch.ones_like(batch.tokens_1N), packing=batch.packing)
    else:
        padded = make_batch([LONG, SHORT], pad=0)
        logits = made(padded.tokens_BT, attention_mask=padded.real_BT)
    loss = balance.take_loss()
    assert isinstance(loss, Tensor)
    (0.0 * logits.sum() + loss).backward()
    gate = made.blocks[1].mlp.gate
    return torch.stack([gate.weight.grad, made.blocks[2].mlp.gate.weight.grad])


def test_the_balance_loss_is_by_sequence_however_they_are_laid_out() -> None:
    padded = balance_gradient(packed=False)
    assert padded.abs().max() > 0
    assert torch.allclose(balance_gradient(packed=True), padded, atol=1e-6)
    assert torch.equal(balance_gradient(packed=True, recompute=True), balance_gradient(packed=True))


def of_answers(batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Loads, balance loss and the gradient of both the loss and the answers' logits."""
    made = model()
    balance = ExpertBalance(made, World(0, 1, torch.device("cpu")), wants_loss=True)
    logits = made(batch.tokens_1N, attention_mask=torch.ones_like(batch.tokens_1N), packing=batch.packing, at_M=batch.at_M)
    loss = balance.take_loss()
    assert isinstance(loss, Tensor)
    (loss + logits.gather(1, batch.targets_M[:, None]).sum()).backward()
    return balance.take_loads(), loss, torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])


def test_a_shared_prompt_counts_and_teaches_as_often_as_it_is_shared() -> None:
    answers = [([1, 2, 3], [4, 5]), ([1, 2, 3], [6]), ([1, 2, 3], [7, 8, 9]), ([5, 5], [1, 2]), ([5, 5], [3, 3, 3])]
    (loads_LE, loss, gradient), plain = of_answers(pack_answers(answers)), of_answers(pack_batch(answers))
    assert torch.equal(loads_LE, plain[0])
    assert torch.allclose(loss, plain[1], atol=1e-6) and torch.allclose(gradient, plain[2], atol=1e-5)
