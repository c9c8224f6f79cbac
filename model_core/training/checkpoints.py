"""Checkpoints on the disk: sealed when whole, verified before they are used, thinned out by age and quality.

    step_00000012/model/         Hugging Face directory, safetensors
                  state/         see `stored`; read only by a resumed attempt of the same run
                  metadata.json  step, phase, metrics, layout of the state, sha256 of every file
                  COMPLETE       last; without it the directory is no checkpoint
    part_00000012/               one that is being written; `saving` fills it

Every file and directory is on the disk before the marker is, and the marker before the name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_core.config import CheckpointConfig
from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE, RunDir, sync, write_json

METADATA = "metadata.json"


def verify(directory: str | Path) -> dict[str, Any]:
    """Metadata of the checkpoint in `directory`, every file of which is there and unchanged.

    Raises CheckpointError when the marker is missing or a file differs from what was written.
    """
    directory = Path(directory)
    metadata = read_metadata(directory)
    for name, expected in metadata["files"].items():
        path = directory / name
        if not path.is_file() or _sha256(path) != expected:
            raise CheckpointError(f"{path} is missing or damaged: its content is not what was written. "
                                  "Choose another checkpoint.")
    return metadata


def read_metadata(directory: Path) -> dict[str, Any]:
    """Metadata of a complete checkpoint whose files were verified before. Raises CheckpointError."""
    if not (directory / COMPLETE).is_file():
        raise CheckpointError(
            f"{directory} has no {COMPLETE} marker: it does not exist or was not written to its end. "
            "Choose another checkpoint."
        )
    try:
        metadata: dict[str, Any] = json.loads((directory / METADATA).read_text())
        files = metadata["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{directory} has no readable metadata.json ({error}). Choose another checkpoint."
        raise CheckpointError(message) from error
    if not isinstance(files, dict):
        raise CheckpointError(f"{directory}/metadata.json names no files. Choose another checkpoint.")
    return metadata


def newest_whole(candidates: Sequence[Path]) -> tuple[Path, list[str]]:
    """The first of `candidates` that verifies, and why those before it did not.

    Raises the CheckpointError of the first when none does.
    """
    refused: list[CheckpointError] = []
    for directory in candidates:
        try:
            verify(directory)
        except CheckpointError as error:
            refused.append(error)
        else:
            return directory, [error.message for error in refused]
    raise refused[0]


def seal(directory: Path, metadata: dict[str, Any], *, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Writes metadata.json and, last of all, the marker. Returns the metadata with hashes and sizes.

    `known` are the hashes, by path in `directory`, of files that `keep_file` has dealt with. Sealing again after a change is
    allowed: the two files that it writes are not among those that it hashes.
    """
    own = {directory / METADATA, directory / COMPLETE}
    files = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*"))
             if path.is_file() and path not in own}
    hashes = {name: (known or {}).get(name) or keep_file(path) for name, path in files.items()}
    size = sum(path.stat().st_size for path in files.values())
    digest = hashlib.sha256("".join(f"{name} {value}\n" for name, value in hashes.items()).encode()).hexdigest()
    complete = {**metadata, "created": time.time(), "size_bytes": size, "sha256": digest, "files": hashes}
    write_json(directory / METADATA, complete)
    for folder in [*(path for path in directory.rglob("*") if path.is_dir()), directory]:
        sync(folder)
    (directory / COMPLETE).touch()
    sync(directory / COMPLETE)
    sync(directory)
    return complete


def keep_file(path: Path) -> str:
    """Sees to it that a file is on the disk; returns its hash."""
    return _sha256(path, sync=True)


def amend(directory: Path, **changes: Any) -> dict[str, Any]:
    """Changes what metadata.json says besides the files, which stay sealed as they are."""
    metadata = {**read_metadata(directory), **changes}
    write_json(directory / METADATA, metadata)
    sync(directory)
    return metadata


def publish(part: Path, directory: Path) -> None:
    """Gives a sealed checkpoint its name; one of the same step is replaced."""
    if directory.exists():
        _remove(directory)
    part.rename(directory)
    sync(directory.parent)


def tidy(rundir: RunDir) -> None:
    """Removes what an earlier start did not get done, and names what it had sealed."""
    if not rundir.checkpoints.is_dir():
        return
    for part in rundir.checkpoints.glob("part_*"):
        directory = part.with_name(part.name.replace("part_", "step_"))
        if (part / COMPLETE).is_file() and not (directory / COMPLETE).is_file():
            publish(part, directory)
        else:
            _remove(part)
    for directory in rundir.checkpoints.glob("step_*"):
        if not (directory / COMPLETE).is_file():
            _remove(directory)


def prune(rundir: RunDir, config: CheckpointConfig, *, keep: Path) -> list[int]:
    """Removes checkpoints that are neither among the newest nor the best, nor `keep`; returns their steps."""
    complete = rundir.complete_checkpoints()
    kept = {keep, *complete[-config.keep_last :]}
    if config.keep_best:
        scored = [(score, path) for path in complete if (score := _score(path, config.metric)) is not None]
        kept.update(path for _score, path in sorted(scored)[-config.keep_best :])
    removed = [path for path in complete if path not in kept]
    for path in removed:
        _remove(path)
    return [int(path.name.removeprefix("step_")) for path in removed]


def _score(path: Path, metric: str) -> float | None:
    value = read_metadata(path).get("metrics", {}).get(metric)
    return None if value is None else float(value)


def _remove(directory: Path) -> None:
    (directory / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(directory)


def _sha256(path: Path, *, sync: bool = False) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return digest
