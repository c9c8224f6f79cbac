"""A model cut over ranks as AutoTP and AutoEP cut it: what each holds is found in the whole, stored once, and read by any."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.model import Transformer
from model_core.model.moe import MoE
from model_core.training.regions import EMBEDDING, HEAD, extent, overlap, regions, within
from model_core.training.state import TrainingState
from model_core.training.stored import StoredState
from model_core.training.tensor import COLUMNS, cut_dimension
from model_core.training.weights import is_whole, whole_state
from model_core.training.world import World
from tests.model_core.training.in_process import SHAPE
from tests.model_core.training.ranks import ALONE, each_rank

CONFIG = ModelConfig.parse({**SHAPE, "vocab_size": 11, "num_hidden_layers": 3})


class SplitMoE(nn.Module):
    """The experts of one rank, under the names and marks of DeepSpeed's AutoEP layer."""

    def __init__(self, whole: MoE, rank: int, size: int) -> None:
        super().__init__()
        num, inner = whole.experts.num_experts // size, whole.experts.down_proj.shape[2]
        own = slice(rank * num, (rank + 1) * num)
        both, down = whole.experts.gate_up_proj[own], whole.experts.down_proj[own]
        self._is_autoep_layer, self.ep_rank, self.num_local_experts = True, rank, num
        self.router, self.router.gate = nn.Module(), nn.Module()
        self.router.gate.weight = nn.Parameter(whole.gate.weight.detach().clone())
        self.router.register_buffer("e_score_correction_bias", whole.gate.e_score_correction_bias)
        self.experts, self.shared_experts = nn.Module(), whole.shared_experts
        for name, part in (("w1", both[:, :inner]), ("w3", both[:, inner:]), ("w2", down)):
            self.experts.register_parameter(name, nn.Parameter(part.detach().clone()))


def cut(whole: Transformer, rank: int, size: int, *, experts: bool, heads: bool) -> nn.Module:
    """What `rank` holds."""
    made = copy.deepcopy(whole)
    if experts:
        for block in made.blocks:
            if isinstance(block.mlp, MoE):
                block.mlp = cast(MoE, SplitMoE(block.mlp, rank, size))
    for name, layer in made.named_modules() if heads else ():
        dim = cut_dimension(f"{name}.weight")
        if dim is not None:
            assert isinstance(layer, nn.Linear)
            layer.weight = nn.Parameter(layer.weight.detach().chunk(size, dim=dim)[rank].clone())
            vars(layer).update(tp_world_size=size, tp_index=rank)
    return made


def whole_model(seed: int = 0, **changes: Any) -> Transformer:
    torch.manual_seed(seed)
    made = Transformer(CONFIG.model_copy(update=changes))
    for block in made.blocks[1:]:
        assert isinstance(block.mlp, MoE) and block.mlp.gate.e_score_correction_bias is not None
        block.mlp.gate.e_score_correction_bias.normal_()
    return made


def state_of(module: nn.Module, world: World, *, trained: bool = False) -> TrainingState:
    """Its state under AdamW, after an update whose every moment tells the weight."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.0, weight_decay=0.0)
    if trained:
        for parameter in module.parameters():
            parameter.grad = parameter.detach().clone()
        optimizer.step()
    return TrainingState(SimpleNamespace(optimizer=optimizer), module, CONFIG, world)


LAYOUTS = [{"experts": True, "heads": False}, {"experts": False, "heads": True}, {"experts": True, "heads": True}]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_ranks_hold_is_stored_whole_and_once(tmp_path: Path, layout: dict[str, bool]) -> None:
    whole, size = whole_model(), 2

    def save(world: World) -> int:
        snapshot = state_of(cut(whole, world.rank, size, **layout), world, trained=True).snapshot()
        snapshot.write(tmp_path, world.rank)
        return snapshot.num_bytes

    sizes = each_rank(size, save)
    stored = StoredState(tmp_path)
    expected = whole.state_dict()
    assert sorted(stored.names) == sorted(expected)
    assert all(torch.equal(stored.whole(name), tensor) for name, tensor in expected.items())
    numbers = sum(p.numel() for p in whole.parameters())
    biases = sum(tensor.numel() for name, tensor in expected.items() if "e_score" in name)
    assert sum(sizes) == 4 * (3 * numbers + biases), "each weight with its two moments, and each bias, once"
    assert max(sizes) < 0.75 * sum(sizes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("into", [*LAYOUTS, {"experts": False, "heads": False}])
def test_what_one_layout_stored_any_other_takes_up(tmp_path: Path, layout: dict[str, bool], into: dict[str, bool]) -> None:
    whole, other = whole_model(), whole_model(1)
    each_rank(2, lambda world: state_of(cut(whole, world.rank, 2, **layout), world, trained=True).snapshot().write(tmp_path, world.rank))

    def load(world: World) -> None:
        module = cut(other, world.rank, 2, **into)
        state = state_of(module, world)
        state.restore(StoredState(tmp_path), {})
        wanted = {**dict(cut(whole, world.rank, 2, **into).named_parameters())}
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, wanted[name]), name
            moment: Tensor = state._optimizer.state[parameter]["exp_avg"]
            assert torch.allclose(moment, 0.1 * wanted[name], atol=1e-6) and state._optimizer.state[parameter]["step"] == 1
        assert all(torch.equal(tensor, dict(cut(whole, world.rank, 2, **into).named_buffers())[name])
                   for name, tensor in module.named_buffers())

    each_rank(2, load)


def test_a_whole_model_is_its_own_whole_and_a_cut_one_is_not() -> None:
    whole = whole_model()
    assert is_whole(whole) and whole_state(whole).keys() == whole.state_dict().keys()
    assert not any(is_whole(cut(whole, 0, 2, **layout)) for layout in LAYOUTS)
    found = regions(whole, CONFIG)
    assert sorted(found) == sorted(whole.state_dict())
    assert all(extent(region.box) == tuple(tensor.shape) and region.name == name for name, (tensor, region) in found.items())


def test_a_tied_head_on_another_stage_is_a_copy_of_the_embedding_and_not_saved() -> None:
    config = CONFIG.model_copy(update={"tie_word_embeddings": True})
    last_stage = nn.Module()
    last_stage.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    (_tensor, region), = regions(last_stage, config).values()
    assert region.name == EMBEDDING and region.is_copy
    state = TrainingState(SimpleNamespace(optimizer=torch.optim.AdamW(last_stage.parameters())), last_stage, config, ALONE)
    assert not state.snapshot().tensors
    assert regions(last_stage, CONFIG)[HEAD][1].name == HEAD
    together = whole_model(tie_word_embeddings=True)
    assert EMBEDDING in {name for name, _parameter in together.named_parameters()} and not regions(
        together, together.config)[EMBEDDING][1].is_copy


@pytest.mark.parametrize(("name", "dimension"), [
    *((f"model.layers.0.x.{name}.weight", 0) for name in COLUMNS), ("a.o_proj.weight", 1), ("a.down_proj.weight", 1),
    ("mlp.experts.down_proj", None), ("a.kv_a_proj_with_mqa.weight", None), ("lm_head.weight", None), ("a.q_proj.bias", None),
])
def test_what_is_cut_and_how(name: str, dimension: int | None) -> None:
    assert cut_dimension(name) == dimension


SIDE = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda pair: (min(pair), max(pair)))
BOXES = st.tuples(SIDE, SIDE)


@settings(deadline=None)
@given(BOXES, BOXES)
def test_an_overlap_holds_the_indices_that_both_hold(one: Any, other: Any) -> None:
    def inside(box: Any) -> set[tuple[int, int]]:
        return {(row, column) for row in range(*box[0]) for column in range(*box[1])}

    common = overlap(one, other)
    assert (inside(common) if common else set()) == inside(one) & inside(other)
    assert common == overlap(other, one)
    if common:
        numbers = torch.arange(49).view(7, 7)
        of_one = numbers[tuple(slice(*side) for side in one)][within(common, one)]
        assert torch.equal(of_one, numbers[tuple(slice(*side) for side in common)])
        assert tuple(of_one.shape) == extent(common)
