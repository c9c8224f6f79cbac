"""Checkpoints: written whole or not at all, verified before they are used, thinned out by age and quality.

    step_00000012/model/         Hugging Face directory, safetensors
                  state/         DeepSpeed's state, counters; read only by a resumed attempt of the same run
                  metadata.json  step, phase, metrics, sha256 of every file
                  COMPLETE       last; without it the directory is no checkpoint
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from model_core.config import CheckpointConfig
from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE, RunDir, write_json

METADATA = "metadata.json"


def verify(directory: str | Path) -> dict[str, Any]:
    """Metadata of the checkpoint in `directory`, every file of which is there and unchanged.

    Raises CheckpointError when the marker is missing or a file differs from what was written.
    """
    directory = Path(directory)
    if not (directory / COMPLETE).is_file():
        raise CheckpointError(
            f"{directory} has no {COMPLETE} marker: it does not exist or was not written to its end. "
            "Choose another checkpoint."
        )
    try:
        metadata: dict[str, Any] = json.loads((directory / METADATA).read_text())
        files: dict[str, str] = metadata["files"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        message = f"{directory} has no readable metadata.json ({error}). Choose another checkpoint."
        raise CheckpointError(message) from error
    for name, expected in files.items():
        path = directory / name
        if not path.is_file() or _sha256(path) != expected:
            raise CheckpointError(f"{path} is missing or damaged: its content is not what was written. "
                                  "Choose another checkpoint.")
    return metadata


def seal(directory: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Writes metadata.json and, last of all, the marker. Returns the metadata with hashes and sizes.

    Sealing again after a change is allowed: the two files that it writes are not among those that it hashes.
    """
    own = {directory / METADATA, directory / COMPLETE}
    files = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*"))
             if path.is_file() and path not in own}
    hashes = {name: _sha256(path) for name, path in files.items()}
    size = sum(path.stat().st_size for path in files.values())
    digest = hashlib.sha256("".join(f"{name} {value}\n" for name, value in hashes.items()).encode()).hexdigest()
    complete = {**metadata, "created": time.time(), "size_bytes": size, "sha256": digest, "files": hashes}
    write_json(directory / METADATA, complete)
    with (directory / COMPLETE).open("w") as marker:
        marker.flush()
        os.fsync(marker.fileno())
    return complete


def prune(rundir: RunDir, config: CheckpointConfig, *, keep: Path) -> list[int]:
    """Removes checkpoints that are neither among the newest nor the best, nor `keep`; returns their steps."""
    complete = rundir.complete_checkpoints()
    kept = {keep, *complete[-config.keep_last :]}
    if config.keep_best:
        scored = [(score, path) for path in complete if (score := _score(path, config.metric)) is not None]
        kept.update(path for _score, path in sorted(scored)[-config.keep_best :])
    removed = [path for path in complete if path not in kept]
    for path in removed:
        (path / COMPLETE).unlink()
        shutil.rmtree(path)
    return [int(path.name.removeprefix("step_")) for path in removed]


def _score(path: Path, metric: str) -> float | None:
    value = json.loads((path / METADATA).read_text()).get("metrics", {}).get(metric)
    return None if value is None else float(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
