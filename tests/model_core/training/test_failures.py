"""What ended a rank becomes one sentence with a remedy: of its own, of the machine, or of the rank that really failed."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from model_core.config import RunConfig, RunPaths
from model_core.errors import DataError, MachineError, TrainingError
from model_core.rundir import RunDir
from model_core.training import failures
from model_core.training.failures import NonFiniteLoss, RankEnded, RankFailed, explain, note
from model_core.training.reporter import Reporter
from model_core.training.world import World
from tests.model_core.file_limit import file_limit
from tests.model_core.training.ranks import ALONE, CPU

BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234")


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", run=RunConfig(phase="cold_start"), paths=RunPaths())


def reporter(rundir: RunDir) -> Reporter:
    """Of a rank that is not the first, in the ninth step."""
    made = Reporter(rundir, is_first=False)
    made.stage("updating", 9)
    return made


def explained(rundir: RunDir, error: BaseException, world: World | None = ALONE) -> Any:
    return explain(error, rundir, world, reporter(rundir))


@pytest.mark.parametrize(("error", "words", "field"), [
    (OSError(errno.ENOSPC, "x"), "The disk is full: .* are free at .*keep_last lower", "checkpoint.keep_last"),
    (OSError(errno.EDQUOT, "x"), "The disk is full", "checkpoint.keep_last"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "The disk is full", "checkpoint.keep_last"),
    (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64"), "The disk is full", "checkpoint.keep_last"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory.*gradient checkpointing", "phase_config.max_micro_tokens"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory", "phase_config.max_micro_tokens"),
])
def test_errors_of_the_machine_have_a_remedy(rundir: RunDir, error: BaseException, words: str, field: str) -> None:
    known = explained(rundir, error)
    assert isinstance(known, MachineError) and known.field == field
    with pytest.raises(MachineError, match=words):
        raise known


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FileNotFoundError(2, "no such file"), KeyError("x"), BROKEN,
])
def test_what_a_user_cannot_mend_is_not_explained(rundir: RunDir, error: BaseException) -> None:
    """A connection cannot have broken where there is nobody else."""
    assert explained(rundir, error) is None and explained(rundir, error, None) is None


def test_an_error_of_ours_is_itself(rundir: RunDir) -> None:
    error = DataError("No rows.", field="dataset")
    assert explained(rundir, error) is error


def dead_process() -> int:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def of_three(rank: int, *, pids: tuple[int, ...] = (0, 0, 0)) -> World:
    return World(rank, 3, CPU, pids)


@pytest.mark.parametrize("error", [
    BROKEN, RuntimeError("NCCL error: remote process exited"), ConnectionResetError(104, "Connection reset by peer"), BrokenPipeError(32, "Broken pipe"),
])
def test_the_rank_that_failed_is_told_by_those_that_felt_it(rundir: RunDir, error: BaseException) -> None:
    failing = Reporter(rundir, is_first=False)
    failing.stage("saving", 4)
    note(rundir, 2, MachineError("The disk is full.", field="checkpoint.keep_last"), failing)
    known = explained(rundir, error, of_three(0))
    assert isinstance(known, RankFailed) and (known.rank, known.step, known.stage) == (2, 4, "saving")
    assert str(known) == "Rank 2 failed in the stage saving, step 4: MachineError: The disk is full."
    assert known.field == "checkpoint.keep_last"


def test_a_rank_that_is_gone_without_a_word_is_told(rundir: RunDir) -> None:
    known = explained(rundir, BROKEN, of_three(0, pids=(0, dead_process(), 0)))
    assert isinstance(known, RankEnded) and (known.rank, known.step, known.stage) == (1, 9, "updating")


def test_who_ended_is_passed_on_by_those_who_saw_it(rundir: RunDir) -> None:
    """Rank 1 saw rank 2 end and is gone itself by now: it is not the one."""
    note(rundir, 1, RankEnded(2, stage="measuring", step=3), reporter(rundir))
    known = explained(rundir, BROKEN, of_three(0, pids=(0, dead_process(), 0)))
    assert isinstance(known, RankEnded) and known.rank == 2 and (known.stage, known.step) == ("updating", 9)


def test_one_that_only_felt_it_too_is_not_blamed(rundir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "WAIT_SECONDS", 0.05)
    note(rundir, 1, RankFailed({"rank": 0, "stage": "saving", "step": 1, "type": "X", "message": "m", "field": ""}), reporter(rundir))
    known = explained(rundir, BROKEN, of_three(0))
    assert type(known) is TrainingError and "none says why" in str(known) and "step 9" in str(known)


def test_a_note_says_where_and_is_forgotten_at_the_next_start(rundir: RunDir) -> None:
    note(rundir, 1, NonFiniteLoss(0, 7), reporter(rundir))
    told = json.loads((rundir.errors / "rank_1.json").read_text())
    assert told["type"] == "NonFiniteLoss" and told["rank"] == 0 and (told["stage"], told["step"]) == ("updating", 9)
    failures.forget(rundir, 1)
    failures.forget(rundir, 1)
    assert not list(rundir.errors.iterdir())


def test_a_note_that_finds_no_room_is_no_second_error(rundir: RunDir) -> None:
    with file_limit(10):
        note(rundir, 1, RuntimeError("x" * 100), reporter(rundir))
    assert not (rundir.errors / "rank_1.json").exists()


def test_space_is_held_for_the_last_words_and_given_back(rundir: RunDir) -> None:
    failures.hold_space(rundir)
    held = rundir.path / failures.RESERVE
    assert held.stat().st_blocks * 512 >= failures.RESERVE_BYTES == held.stat().st_size
    failures.give_space(rundir)
    failures.give_space(rundir)
    assert not held.exists()


def test_a_checkpoint_that_does_not_fit_says_how_much_it_needs(tmp_path: Path) -> None:
    for needed, words in ((2_500_000_000, "2.5 GB"), (999_999_999, "1000.0 MB"), (1_500_000, "1.5 MB")):
        assert f"of step 8 needs about {words}," in str(failures.checkpoint_does_not_fit(tmp_path, step=8, needed=needed))


def test_a_world_knows_who_lives() -> None:
    world = of_three(2, pids=(dead_process(), 0, 0))
    assert not world.is_alive(0) and world.is_alive(1), "of a process on another machine nothing is known"
    assert not world.is_first_alive() and of_three(1, pids=(dead_process(), 0, 0)).is_first_alive()
    assert ALONE.is_first_alive() and ALONE.gather(3) == [3]
