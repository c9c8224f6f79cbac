"""A checkpoint is whole or it is refused; the newest and the best are kept."""

from pathlib import Path

import pytest

from model_core.config import CheckpointConfig, RunConfig, RunPaths
from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE, RunDir
from model_core.training.checkpoints import prune, seal, verify


def make(directory: Path, **metrics: float) -> Path:
    (directory / "model").mkdir(parents=True)
    (directory / "model" / "model.safetensors").write_bytes(b"weights" * 100)
    seal(directory, {"step": 1, "metrics": metrics})
    return directory


def test_a_whole_one_is_accepted(tmp_path: Path) -> None:
    metadata = verify(make(tmp_path / "c"))
    assert metadata["size_bytes"] == 700 and list(metadata["files"]) == ["model/model.safetensors"]


@pytest.mark.parametrize("harm", ["no marker", "truncated", "file gone", "changed", "metadata broken"])
def test_a_harmed_one_is_refused(tmp_path: Path, harm: str) -> None:
    directory = make(tmp_path / "c")
    weights = directory / "model" / "model.safetensors"
    if harm == "no marker":
        (directory / COMPLETE).unlink()
    elif harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "file gone":
        weights.unlink()
    elif harm == "changed":
        weights.write_bytes(b"Weights" * 100)
    else:
        (directory / "metadata.json").write_text("{")
    with pytest.raises(CheckpointError, match="Choose another"):
        verify(directory)


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    for step, quality in enumerate([0.1, 0.9, 0.3, 0.2, 0.4]):
        make(rundir.checkpoint(step), quality=quality)
    removed = prune(rundir, CheckpointConfig(keep_last=2, keep_best=1), keep=rundir.checkpoint(4))
    assert removed == [0, 2]
    assert [p.name for p in rundir.complete_checkpoints()] == [f"step_{s:08d}" for s in (1, 3, 4)]


def test_without_a_measurement_the_newest_are_kept(tmp_path: Path) -> None:
    rundir = RunDir.create(tmp_path / "r", run=RunConfig.model_construct(phase="x"), paths=RunPaths())
    for step in range(3):
        make(rundir.checkpoint(step))
    assert prune(rundir, CheckpointConfig(keep_last=1), keep=rundir.checkpoint(2)) == [0, 1]
