"""What ranks wrote is found again however it is cut; what is missing or damaged is refused by name."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.errors import CheckpointError, ConfigError
from model_core.training.background import Background
from model_core.training.muon import MuonWithAdamW
from model_core.training.regions import Region
from model_core.training.state import TrainingState, check_optimizer
from model_core.training.stored import WEIGHT, Snapshot, StoredState, WholeWeights, file_of, key_of
from model_core.training.world import World

ALONE = World(0, 1, torch.device("cpu"))
SHAPE = (4, 6, 5)
WHOLE = Region("w", tuple((0, size) for size in SHAPE))


def cuts(draw: random.Random, size: int) -> list[tuple[int, int]]:
    """Some way to cut a dimension."""
    between = sorted(draw.sample(range(1, size), draw.randint(0, min(2, size - 1))))
    return list(itertools.pairwise([0, *between, size]))


def random_regions(draw: random.Random) -> list[Region]:
    """Boxes that fill the whole tensor."""
    return [Region("w", box) for box in itertools.product(*(cuts(draw, size) for size in SHAPE))]


def stretches(draw: random.Random, tensor: Tensor, regions: list[Region]) -> list[tuple[Region, int, Tensor]]:
    """The content of each box, flattened and cut again."""
    found = []
    for region in regions:
        flat = tensor[tuple(slice(*side) for side in region.box)].flatten()
        found += [(region, begin, flat[begin:end].clone()) for begin, end in cuts(draw, len(flat))] if len(flat) > 1 else [(region, 0, flat)]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_is_read_by_any_other(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    tensor = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    files: list[dict[str, Tensor]] = [{} for _ in range(3)]
    for region, start, values in stretches(draw, tensor, random_regions(draw)):
        files[draw.randrange(3)][key_of(WEIGHT, region, start)] = values
    for rank, tensors in enumerate(files):
        Snapshot(tensors, {"w": 7}, {}).write(tmp_path, rank)
    stored = StoredState(tmp_path)
    assert stored.steps["w"] == 7 and stored.states("w") == [WEIGHT] and torch.equal(stored.whole("w"), tensor)
    for region, start, values in stretches(draw, tensor, random_regions(draw)):
        assert torch.equal(stored.read(WEIGHT, region, start, len(values)), values)


def test_what_is_missing_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no training state"):
        StoredState(tmp_path)
    halves = [Region("w", ((0, 2), *WHOLE.box[1:])), Region("w", ((2, 4), *WHOLE.box[1:]))]
    for rank, region in enumerate(halves):
        Snapshot({key_of(WEIGHT, region, 0): torch.zeros(60)}, {}, {}).write(tmp_path, rank)
    (tmp_path / file_of(1)).unlink()
    with pytest.raises(CheckpointError, match=r"60 of the 120 values of weight of w"):
        StoredState(tmp_path).read(WEIGHT, WHOLE, 0, 120)
    Snapshot({key_of(WEIGHT, halves[0], 30): torch.zeros(30)}, {}, {}).write(tmp_path, 0)
    with pytest.raises(CheckpointError, match="lacks values from number 0"):
        StoredState(tmp_path).read(WEIGHT, halves[0], 0, 60)
    (tmp_path / file_of(0)).write_bytes(b"half of a file")
    with pytest.raises(CheckpointError, match=f"{file_of(0)} is damaged"):
        StoredState(tmp_path)


def test_weights_are_a_mapping_of_what_is_there(tmp_path: Path) -> None:
    Snapshot({key_of(WEIGHT, WHOLE, 0): torch.ones(120)}, {}, {}).write(tmp_path, 0)
    weights = WholeWeights(StoredState(tmp_path))
    assert list(weights) == ["w"] and len(weights) == 1 and weights["w"].shape == SHAPE
    with pytest.raises(KeyError):
        weights["v"]


def training_state(seed: int, **scale: float) -> tuple[nn.Linear, torch.optim.Optimizer, TrainingState]:
    """A matrix under AdamW, as an engine without ZeRO has it."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = DynamicLossScaler(init_scale=2.0**12, scale_window=2, min_scale=1, delayed_shift=2, consecutive_hysteresis=False)
    vars(scaler).update(scale)
    engine = SimpleNamespace(optimizer=SimpleNamespace(optimizer=optimizer, loss_scaler=scaler))
    return model, optimizer, TrainingState(engine, model, ModelConfig(), ALONE)


def test_scale_of_the_loss_and_random_generators_go_on(tmp_path: Path) -> None:
    model, optimizer, state = training_state(0, cur_scale=64.0, cur_iter=9, last_overflow_iter=7, cur_hysteresis=1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    state.snapshot().write(tmp_path, 0)
    scale, drawn = state.scale(), torch.rand(3)
    other, their_optimizer, theirs = training_state(1)
    theirs.restore(StoredState(tmp_path), scale)
    assert torch.equal(torch.rand(3), drawn) and torch.equal(other.weight, model.weight)
    assert theirs.scale() == {"cur_scale": 64.0, "cur_iter": 9, "last_overflow_iter": 7, "cur_hysteresis": 1}
    static = SimpleNamespace(cur_scale=1.0, dynamic=False)
    bfloat16 = TrainingState(SimpleNamespace(optimizer=SimpleNamespace(optimizer=their_optimizer, loss_scaler=static)), other,
                             ModelConfig(), ALONE)
    bfloat16.restore(StoredState(tmp_path), scale)
    assert static.cur_scale == 1.0 and bfloat16.scale() == {}


def test_muons_momentum_and_adams_counts_go_on(tmp_path: Path) -> None:
    ends: list[Tensor] = []
    for stored in (None, tmp_path):
        torch.manual_seed(len(ends))
        model = nn.Linear(3, 4)
        optimizer = MuonWithAdamW([{"params": [model.weight], "use_muon": True, "lr": 0.1},
                                   {"params": [model.bias], "use_muon": False, "lr": 0.1}])
        state = TrainingState(SimpleNamespace(optimizer=optimizer), model, ModelConfig(), ALONE)
        if stored is None:
            step(model, optimizer)
            state.snapshot().write(tmp_path, 0)
        else:
            state.restore(StoredState(stored), {})
        step(model, optimizer)
        ends.append(torch.cat([model.weight.detach(), model.bias.detach()[:, None]], dim=1))
    assert torch.equal(*ends)


def step(model: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    model(torch.tensor([1.0, 2.0, -3.0])).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_snapshot_stays_as_it_was(tmp_path: Path) -> None:
    model, _optimizer, state = training_state(0)
    before, snapshot = model.weight.detach().clone(), state.snapshot()
    with torch.no_grad():
        model.weight.zero_()
    snapshot.write(tmp_path, 0)
    assert torch.equal(StoredState(tmp_path).whole("weight"), before)
    assert snapshot.num_bytes == 4 * (12 + 4)


def test_only_another_optimizer_is_refused() -> None:
    field, muon = "phase_config.optimizer", {"phase_config.optimizer": "muon", "parallel.num_processes": 1}
    check_optimizer(muon, {**muon, "parallel.num_processes": 2, "parallel.zero_stage": 3})
    check_optimizer({}, muon)
    with pytest.raises(ConfigError, match="Resume with optimizer muon") as refused:
        check_optimizer(muon, {**muon, field: "adamw"})
    assert refused.value.field == field


def test_a_job_works_beside_and_its_error_comes_out_where_it_is_asked_for() -> None:
    go = threading.Event()
    beside = Background(lambda: go.wait(30) and threading.get_ident())
    assert not beside.is_done
    go.set()
    assert beside.result() != threading.get_ident() and beside.is_done and beside.error() is None and beside.seconds > 0
    failing = Background(lambda: Path("/does/not/exist").read_text())
    assert isinstance(failing.error(), FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        failing.result()
