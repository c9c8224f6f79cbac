"""A checkpoint is whole or it is refused; the newest and the best are kept."""

from pathlib import Path

import pytest

from model_core.config import CheckpointConfig, RunConfig, RunPaths
from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE, RunDir
from model_core.training.checkpoints import amend, newest_whole, prune, publish, seal, tidy, verify


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


def test_metrics_may_be_added_to_a_sealed_one(tmp_path: Path) -> None:
    directory = make(tmp_path / "c")
    before = verify(directory)
    amend(directory, metrics={"quality": 0.5}, is_final=True)
    after = verify(directory)
    assert after["metrics"] == {"quality": 0.5} and after["is_final"] and after["sha256"] == before["sha256"]


def test_one_is_named_when_it_is_whole_and_replaces_that_of_its_step(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    make(rundir.checkpoint(3), quality=0.1)
    publish(make(rundir.checkpoints / "part_00000003", quality=0.2), rundir.checkpoint(3))
    assert [path.name for path in rundir.checkpoints.iterdir()] == ["step_00000003"]
    assert verify(rundir.checkpoint(3))["metrics"] == {"quality": 0.2}


def test_tidying_removes_what_is_not_whole_and_names_what_was_sealed(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    for name in ("step_00000001", "step_00000002", "part_00000002", "part_00000004", "part_00000005"):
        make(rundir.checkpoints / name)
    for name in ("step_00000001", "part_00000004"):
        (rundir.checkpoints / name / COMPLETE).unlink()
    tidy(rundir)
    assert sorted(path.name for path in rundir.checkpoints.iterdir()) == ["step_00000002", "step_00000005"]
    for directory in rundir.complete_checkpoints():
        verify(directory)


def test_the_newest_whole_one_is_found_and_the_others_are_told(tmp_path: Path) -> None:
    paths = [make(tmp_path / name) for name in ("c", "b", "a")]
    (paths[0] / COMPLETE).unlink()
    (paths[1] / "model" / "model.safetensors").write_bytes(b"")
    chosen, refused = newest_whole(paths)
    assert chosen == paths[2] and len(refused) == 2
    with pytest.raises(CheckpointError, match="no COMPLETE"):
        newest_whole(paths[:2])
