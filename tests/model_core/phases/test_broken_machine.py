"""A full disk and a killed process: what was whole stays whole, and the run says what happened and what to do."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_core.config import RunConfig, RunPaths
from model_core.rundir import RunDir
from model_core.training.checkpoints import verify
from model_core.training.failures import is_disk_full
from tests.model_core.file_limit import file_limit
from tests.model_core.phases.trained import BASE, Running, cold_start, execute

TWO = cold_start(steps=100_000, parallel={"num_processes": 2}, phase_config={"optimizer": "adamw"},
                 checkpoint={"every_steps": 50, "keep_best": 0, "every_seconds": 0.0}, **BASE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_the_older_checkpoints(small_disk: Path, dataset: Path) -> None:
    config = RunConfig.parse({**BASE, **cold_start(steps=100, checkpoint={"every_steps": 1, "keep_last": 99, "keep_best": 0})})
    trained = execute(RunDir.create(small_disk / "run", run=config, paths=RunPaths(dataset=str(dataset))))
    assert trained.status == 2, trained.output
    (told,) = trained.events("error")
    assert told["type"] == "MachineError" and told["field"] == "checkpoint.keep_last" and told["stage"] == "saving"
    assert "needs about" in told["message"] and "are free" in told["message"] and "resume" in told["message"]
    assert trained.result["error"]["message"] == told["message"]
    left = sorted(path.name for path in trained.rundir.checkpoints.iterdir())
    assert left == [path.name for path in trained.rundir.complete_checkpoints()] and left
    for directory in trained.rundir.complete_checkpoints():
        verify(directory)


def test_a_full_disk_is_known_whoever_writes(tmp_path: Path) -> None:
    values = {"a": torch.zeros(100_000)}
    for write in (lambda: torch.save(values, tmp_path / "t"), lambda: save_file(values, tmp_path / "s"),
                  lambda: (tmp_path / "f").write_bytes(bytes(400_000))):
        with file_limit(50_000), pytest.raises(Exception) as raised:
            write()
        assert is_disk_full(raised.value)
    assert not is_disk_full(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) and not is_disk_full(FileNotFoundError(2, ""))


@pytest.fixture
def two(request: pytest.FixtureRequest, tmp_path: Path, dataset: Path) -> Iterator[Running]:
    """Two processes that have begun to train, by DeepSpeed's launcher for the test that asks for it."""
    rundir = RunDir.create(tmp_path / "run", run=RunConfig.parse(TWO), paths=RunPaths(dataset=str(dataset)))
    with Running(rundir, num_processes=2, launcher=getattr(request, "param", False)) as running:
        running.until(lambda: running.has_told("experts"))
        yield running


@pytest.mark.parametrize(("two", "rank"), [(True, 1), (False, 0)], indirect=["two"], ids=["launched", "forked"])
def test_a_killed_rank_is_told_by_one_that_lives(two: Running, rank: int) -> None:
    two.rank(rank).kill()
    trained = two.ended()
    error = trained.result["error"]
    assert trained.result["status"] == "failed" and error["type"] == "RankEnded"
    assert f"Rank {rank} ended" in error["message"]
    (told,) = trained.events("error")
    assert told["rank"] == rank and told["stage"] in {"updating", "saving", "measuring", "loading"} and told["step"] > 0


def test_an_error_of_another_rank_is_told_with_its_rank_and_stage(two: Running) -> None:
    two.rank(1).rlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    trained = two.ended()
    error = trained.result["error"]
    assert error["type"] == "RankFailed" and error["field"] == "checkpoint.keep_last"
    assert "Rank 1 failed in the stage saving" in error["message"] and "MachineError: The disk is full" in error["message"]
    (told,) = trained.events("error")
    assert told["rank"] == 1 and told["stage"] == "saving"
