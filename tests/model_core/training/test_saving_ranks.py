"""A checkpoint of several ranks is whole when all have written and one has sealed it; when each may be written."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.errors import MachineError
from model_core.model import load_pretrained
from model_core.training import failures, saving
from model_core.training.checkpoints import verify
from model_core.training.failures import RankFailed, explain, note
from model_core.training.saving import SHARE_OF_TIME, Counters
from model_core.training.stored import Snapshot, StoredState
from model_core.training.world import World
from tests.model_core.training.in_process import Attempt, Run, model_start
from tests.model_core.training.ranks import each_rank


def ranks_of(attempt: Attempt, size: int) -> Any:
    """A way to make the run of each rank; all have the same model."""
    values = {"phase_config": {"steps": 9, "optimizer": "adamw"}, "parallel": {"num_processes": size}}
    starts = [model_start() for _ in range(size)]
    attempt("run", phase_config={"steps": 9})  # makes the directory

    def make(world: World) -> Run:
        return attempt("run", start=starts[world.rank], world=world, **values)

    return make


def save(run: Run, step: int) -> Path:
    return run.frame._saver.save(Counters(step=step), metrics={}, extra_state={"notes.txt": "n"})


def test_the_checkpoint_appears_when_all_have_written(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    make, go = ranks_of(attempt, 2), threading.Event()
    write_own = saving.Saver._write_own

    def slow(self: Any, moment: Any) -> dict[str, str]:
        assert self._world.is_first or go.wait(60)
        return write_own(self, moment)

    monkeypatch.setattr(saving.Saver, "_write_own", slow)

    def program(world: World) -> list[bool]:
        run = make(world)
        directory, seen = save(run, 4), []
        for _ in range(3):
            run.frame._saver.advance()
            seen.append(directory.exists())
        world.barrier()
        go.set()
        run.frame._saver.settle()
        return [*seen, directory.exists(), run.frame._saver._write is None]

    assert each_rank(2, program) == [[False, False, False, True, True]] * 2


@pytest.mark.parametrize("size", [2, 3])
def test_each_rank_writes_its_share_and_the_model_is_put_together(attempt: Attempt, size: int) -> None:
    make = ranks_of(attempt, size)

    def program(world: World) -> tuple[Run, Path]:
        run = make(world)
        directory = save(run, 4)
        run.frame._saver.settle()
        return run, directory

    ranks = each_rank(size, program)
    run, directory = ranks[0]
    files = verify(directory)["files"]
    assert len([name for name in files if name.startswith("state/rank_")]) == size and "state/notes.txt" in files
    assert StoredState(directory / "state").num_ranks == size
    expected = run.frame.policy().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_pretrained(directory / "model").state_dict().items())
    assert [told["step"] for told in run.told("checkpoint")] == [4]


def test_a_rank_that_cannot_write_ends_and_the_others_can_say_so(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failing rank leaves the meeting, which is how a connection breaks; its file is gone, nothing is published."""
    make = ranks_of(attempt, 2)
    write_own = Snapshot.write

    def full(self: Any, directory: Path, rank: int) -> Path:
        path = write_own(self, directory, rank)
        if rank == 1:
            raise OSError(28, "No space left on device")
        return path

    monkeypatch.setattr(Snapshot, "write", full)
    monkeypatch.setattr(failures, "WAIT_SECONDS", 5.0)

    def program(world: World) -> str:
        run = make(world)
        save(run, 4)
        try:
            run.frame._saver.settle()
        except MachineError as error:
            note(run.rundir, world.rank, error, run.reporter)
            world.meeting.barrier.abort()  # type: ignore[attr-defined]
            return str(error)
        except threading.BrokenBarrierError:
            known = explain(RuntimeError("connection reset"), run.rundir, world, run.reporter)
            assert isinstance(known, RankFailed) and known.rank == 1 and known.field == "checkpoint.keep_last"
            return str(known)
        return "nothing happened"

    first, second = each_rank(2, program)
    assert "the checkpoint of step 4 needs about" in second and first.startswith("Rank 1 failed in the stage saving, step 4")
    run = attempt("after", phase_config={"steps": 1})
    left = [path.name for path in (run.rundir.path.parent / "run" / "checkpoints").iterdir()]
    assert left == ["part_00000004"] and not (run.rundir.path.parent / "run" / "checkpoints" / left[0] / "state" / "rank_00001.safetensors").exists()


@pytest.mark.parametrize(("every", "took", "waited", "is_due"), [
    (15.0, 0.0, 14.0, False), (15.0, 0.0, 16.0, True), (15.0, 1.0, 16.0, False), (15.0, 1.0, 51.0, True), (15.0, 0.2, 16.0, True),
    (0.0, 0.0, 1e9, False),
])
def test_a_checkpoint_by_the_clock_takes_its_share_of_the_time_only(
    attempt: Attempt, every: float, took: float, waited: float, is_due: bool
) -> None:
    saver = attempt(phase_config={"steps": 9}, checkpoint={"every_seconds": every}).frame._saver
    saver._took, saver._saved_at = took, time.monotonic() - waited
    assert saver.is_due() is is_due and pytest.approx(0.02) == SHARE_OF_TIME
