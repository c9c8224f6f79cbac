"""A training state that one layout saved goes on in any other: every value as it was, every further step as it would be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_core.config import RunConfig
from model_core.training.balance import ExpertBalance
from model_core.training.engine import TrainingEngine
from model_core.training.regions import EMBEDDING, HEAD, Region, extent
from model_core.training.settings import OptimizationConfig
from model_core.training.stored import StoredState, WholeWeights
from model_core.training.supervised import supervised_passes
from model_core.training.weights import whole_state
from model_core.training.world import World
from tests.model_core.training.parity import Case, batches, largest_difference, names, run_ranks

SHAPE = {"tie_word_embeddings": True}
ALONE = Case({"num_processes": 1, "zero_stage": 0}, SHAPE)
TWO = [
    Case({"num_processes": 2, "zero_stage": 0}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 1}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 2}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 3}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 1, "expert": 2}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 3, "expert": 2}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 1}, SHAPE, {"dtype": "bfloat16"}),
    Case({"num_processes": 2, "zero_stage": 1, "pipeline": 2}, SHAPE),
    Case({"num_processes": 2, "zero_stage": 1, "tensor": 2}, SHAPE),
]
SETTINGS = OptimizationConfig(optimizer="adamw", adamw_lr=1e-3, clip_norm=0.5, weight_decay=0.1)


def name_of(case: Case) -> str:
    """Of its layout and precision."""
    return "-".join([*names([case]), *case.precision.values()])


class Trainer:
    """A layout at work, from a new model or from a stored state."""

    def __init__(self, case: Case, world: World, stored: Path | None = None) -> None:
        config = RunConfig.parse({"phase": "cold_start", "parallel": case.parallel, "precision": case.precision})
        model = case.model()
        if stored is not None:
            model.load_state_dict(state_of(stored))
        self._world = world
        self.engine = TrainingEngine(model, config, SETTINGS, world)
        self._balance = ExpertBalance(self.engine.module, world)
        if stored is not None:
            self.engine.state.restore(StoredState(stored), {})

    def train(self, *steps: int) -> list[float]:
        """The losses of the batches of these numbers."""
        losses = []
        for step in steps:
            passes = supervised_passes(batches()[step], max_tokens=64, share=self.engine.share, device=self._world.device)
            report = self.engine.update(passes, rate_factor=1.0)
            losses.append(sum(self._world.gather(report.loss if self.engine.share.is_teller else 0.0)))
            self._balance.move(self._balance.take_loads(), 0.01)
        return losses

    def weights(self) -> dict[str, Tensor]:
        """All of them."""
        return {name: tensor.float().clone() for name, tensor in whole_state(self.engine.module).items()}

    def save(self, directory: Path) -> Path:
        """Writes what this rank owns."""
        directory.mkdir(parents=True, exist_ok=True)
        self.engine.state.snapshot().write(directory, self._world.rank)
        self._world.barrier()
        return directory


def state_of(directory: Path) -> dict[str, Tensor]:
    state = dict(WholeWeights(StoredState(directory)))
    return {**state, HEAD: state[EMBEDDING]}


def begin(directory: Path, world: World) -> dict[str, Any]:
    """Two steps, a checkpoint, and on to the end without one."""
    trainer = Trainer(ALONE, world)
    trainer.train(0, 1)
    trainer.save(directory)
    return {"losses": trainer.train(2, 3), "weights": trainer.weights(), "last": trainer.train(4), "end": trainer.weights()}


def go_on(given: tuple[list[Case], Path], world: World) -> list[dict[str, Any]]:
    """The same in other layouts, from the first's checkpoint."""
    cases, place = given
    return [go_on_with(case, place / "first", place / name_of(case), world) for case in cases]


def go_on_with(case: Case, source: Path, target: Path, world: World) -> dict[str, Any]:
    """Two steps; then the last one, and the last one once more from a checkpoint of its own."""
    trainer = Trainer(case, world, source)
    trainer.save(target / "as read")
    losses, weights = trainer.train(2, 3), trainer.weights()
    again = Trainer(case, world, trainer.save(target / "trained"))
    last = trainer.train(4), trainer.weights()
    is_same = last[0] == again.train(4) and largest_difference(last[1], again.weights()) == 0.0
    return {"losses": losses, "weights": weights, "is_same": is_same}


def come_back(places: list[Path], world: World) -> list[dict[str, Any]]:
    """The last step in one process, from the checkpoints of the others."""
    trainers = [Trainer(ALONE, world, place) for place in places]
    return [{"last": trainer.train(4), "end": trainer.weights()} for trainer in trainers]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def first(place: Path) -> dict[str, Any]:
    (result,) = run_ranks(begin, place / "first", num=1, directory=place / "ranks")
    return dict(result)


def contents(directory: Path) -> dict[tuple[str, str], Tensor]:
    """Every whole tensor and state of a checkpoint."""
    stored = StoredState(directory)
    regions = [Region(name, tuple((0, size) for size in stored.whole(name).shape)) for name in stored.names]
    return {(region.name, state): stored.read(state, region, 0, math.prod(extent(region.box)))
            for region in regions for state in stored.states(region.name)}


def the_same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold bit for bit the same, however it is cut."""
    ours, theirs = contents(one), contents(other)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[key], theirs[key]) for key in ours) and StoredState(one).steps == StoredState(other).steps


@pytest.fixture(scope="module")
def others(first: dict[str, Any], place: Path) -> dict[str, dict[str, Any]]:
    """What each of the other layouts did, by its name. DeepSpeed takes no other layout in a process after a
    pipeline, nor after tensor parallelism."""
    told: dict[str, dict[str, Any]] = {}
    for cases in (TWO[:-1], TWO[-1:]):
        ranks = run_ranks(go_on, (cases, place), num=2, directory=place / f"ranks up to {name_of(cases[-1])}")
        told.update(zip(map(name_of, cases), ranks[0], strict=True))
    return told


@pytest.mark.parametrize("case", TWO, ids=map(name_of, TWO))
def test_another_layout_goes_on_where_one_process_stopped(
    case: Case, first: dict[str, Any], others: dict[str, dict[str, Any]], place: Path
) -> None:
    name = name_of(case)
    assert the_same(place / "first", place / name / "as read")
    assert others[name]["is_same"], "it does not go on bitwise from its own checkpoint"
    if case.precision:  # in 16 bit the steps are others
        return
    assert others[name]["losses"] == pytest.approx(first["losses"], abs=1e-6)
    assert largest_difference(others[name]["weights"], first["weights"]) <= 1e-6


def test_one_process_goes_on_where_another_layout_stopped(
    first: dict[str, Any], others: dict[str, dict[str, Any]], place: Path
) -> None:
    places = [place / name_of(case) / "trained" for case in TWO if not case.precision]
    (ends,) = run_ranks(come_back, places, num=1, directory=place / "ranks back")
    for end in ends:
        assert end["last"] == pytest.approx(first["last"], abs=1e-6)
        assert largest_difference(end["end"], first["end"]) <= 1e-6
