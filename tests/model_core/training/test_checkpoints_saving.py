"""A checkpoint is written beside the steps: they do not wait for it, it counts when it is whole, and its errors are theirs."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_core.config import ModelConfig, RunConfig, RunPaths
from model_core.data.dataset import Row
from model_core.data.tokenizer import train_tokenizer
from model_core.errors import ConfigError, MachineError
from model_core.model import Transformer, export_state, load_pretrained
from model_core.rundir import RunDir
from model_core.training import families
from model_core.training.checkpoints import verify
from model_core.training.failures import NonFiniteLoss
from model_core.training.reporter import Reporter
from model_core.training.saving import Counters, Saver, read_trainer
from model_core.training.start import check_memory
from model_core.training.state import TrainingState
from model_core.training.world import World
from tests.model_core.file_limit import file_limit
from tests.model_core.phases.trained import TINY

ALONE = World(0, 1, torch.device("cpu"))


class Run:
    """A model under AdamW whose checkpoints one rank writes; nothing trains it."""

    def __init__(self, directory: Path) -> None:
        self.config = RunConfig.parse({"phase": "cold_start", "model": {**TINY, "vocab_size": 24}, "checkpoint": {
            "keep_last": 2, "keep_best": 0, "every_seconds": 1e-9}})
        self.rundir = RunDir.create(directory / "run", run=self.config, paths=RunPaths())
        tokenizer = train_tokenizer(self.config.tokenizer, [Row("1+2=", "3", "3", "sums")])
        self.model = Transformer(self.config.model)
        optimizer = torch.optim.AdamW(self.model.parameters())
        state = TrainingState(SimpleNamespace(optimizer=optimizer), self.model, self.config.model, ALONE)
        engine: Any = SimpleNamespace(state=state, layout={"phase_config.optimizer": "adamw"})
        self.reporter = Reporter(self.rundir, is_first=True)
        self.saver = Saver(self.rundir, self.config, engine, self.config.model, tokenizer, self.reporter, ALONE)

    def save(self, step: int) -> Path:
        return self.saver.save(Counters(step=step, tokens=7), metrics={"quality": 0.5}, extra_state={"chains.jsonl": "{}\n"})

    def told(self, kind: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.rundir.events.read_text().splitlines()]
        return [event["payload"] for event in events if event["kind"] == kind]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.reporter.close()


def test_a_step_goes_on_while_the_checkpoint_of_its_moment_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> None:
        begun.set()
        assert go.wait(60)
        export_state(*arguments)

    monkeypatch.setattr(families, "export_state", slow)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    assert run.saver.is_due()
    directory = run.save(4)
    assert begun.wait(60)
    with torch.no_grad():
        run.model.lm_head.weight.zero_()
    run.saver.advance()
    assert not run.saver.is_due() and not run.told("checkpoint") and not run.rundir.complete_checkpoints()
    go.set()
    run.saver.settle()
    (told,) = run.told("checkpoint")
    metadata = verify(directory)
    assert told["step"] == 4 and told["path"] == "checkpoints/step_00000004" and told["sha256"] == metadata["sha256"]
    assert metadata["tokens"] == 7 and metadata["metrics"] == {"quality": 0.5} and not metadata["is_final"]
    assert (directory / "state" / "chains.jsonl").read_text() == "{}\n"
    assert read_trainer(directory / "state")[0] == Counters(step=4, tokens=7)
    written = load_pretrained(directory / "model").state_dict()
    assert all(torch.equal(written[name], tensor) for name, tensor in before.items())


def test_each_save_finishes_the_one_before_and_old_ones_go(run: Run) -> None:
    for step in (1, 2, 3):
        run.save(step)
    assert [told["step"] for told in run.told("checkpoint")] == [1, 2]
    run.saver.settle()
    assert run.rundir.complete_checkpoints() == [run.rundir.checkpoint(2), run.rundir.checkpoint(3)]
    assert run.told("checkpoint_removed") == [{"step": 1}]
    run.saver.finish(run.rundir.checkpoint(3), {"quality": 0.75})
    assert run.told("checkpoint")[-1]["is_final"] and verify(run.rundir.checkpoint(3))["metrics"] == {"quality": 0.75}


@pytest.mark.parametrize("limit", [40_000, 2_000])
def test_a_disk_that_fills_meanwhile_is_said_at_the_next_boundary(run: Run, limit: int) -> None:
    """The state's file is larger than both limits, the model's too."""
    whole = run.save(1)
    run.saver.settle()
    with file_limit(limit):
        run.save(2)
        with pytest.raises(MachineError, match=r"the checkpoint of step 2 needs about .* are free") as full:
            run.saver.settle()
    assert full.value.field == "checkpoint.keep_last" and run.told("stage")[-1]["stage"] == "saving"
    assert [path.name for path in run.rundir.checkpoints.iterdir()] == ["step_00000001"] and verify(whole)
    run.save(3)
    run.saver.settle()
    assert verify(run.rundir.checkpoint(3))


def test_a_step_that_fails_does_not_lose_what_is_being_written(run: Run) -> None:
    with pytest.raises(NonFiniteLoss), run.saver:
        run.save(1)
        raise NonFiniteLoss(0, 2)
    assert [told["step"] for told in run.told("checkpoint")] == [1] and verify(run.rundir.checkpoint(1))


def test_a_step_that_finds_the_disk_full_is_told_who_filled_it(run: Run) -> None:
    with file_limit(40_000), pytest.raises(MachineError, match="the checkpoint of step 1 needs about"), run.saver:
        run.save(1)
        raise OSError(errno.ENOSPC, "no space for an event")
    run.save(2)
    with pytest.raises(OSError, match="no space for an event"), run.saver:
        raise OSError(errno.ENOSPC, "no space for an event")
    run.saver.settle()


def test_a_model_that_is_not_finite_is_no_checkpoint(run: Run) -> None:
    with torch.no_grad():
        run.model.lm_head.weight.fill_(float("nan"))
    run.save(1)
    with pytest.raises(Exception, match=r"lm_head\.weight holds NaN"):
        run.saver.settle()
    assert not list(run.rundir.checkpoints.iterdir())


def test_a_model_without_room_is_refused_before_it_is_built() -> None:
    config = RunConfig.parse({"phase": "cold_start", "model": "v3_671b"})
    with pytest.raises(ConfigError, match=r"need .* GB .* but there are .* choose a smaller model") as refused:
        check_memory(config, RunPaths(), ALONE)
    assert refused.value.field == "model"


def test_the_model_of_a_checkpoint_is_the_one_that_must_fit(run: Run) -> None:
    directory = run.save(1)
    run.saver.settle()
    config = RunConfig.parse({"phase": "cold_start", "model": "v3_671b"})
    check_memory(config, RunPaths(start_from=str(directory)), ALONE)
    assert ModelConfig.parse(verify(directory)["model_config"]) == run.config.model
