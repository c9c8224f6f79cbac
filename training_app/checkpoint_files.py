"""The files of a checkpoint, as one archive that is made while it is sent."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE
from r1platform.lib.pieces import pieces
from training_app.models import Checkpoint
from training_app.services import checkpoint_model_dir

_BLOCK = 512


@dataclass(frozen=True)
class CheckpointFile:
    """A file of the Hugging Face directory; `name` is relative to it."""

    name: str
    size_bytes: int
    path: Path


def checkpoint_files(checkpoint: Checkpoint) -> list[CheckpointFile]:
    """What there is, by name. Raises CheckpointError when it was removed, is not whole or lies on another machine."""
    if checkpoint.removed_at is not None:
        raise CheckpointError(f"{checkpoint} was removed from disk to make room.")
    directory = checkpoint_model_dir(checkpoint)
    if not (directory.parent / COMPLETE).is_file():
        raise CheckpointError(f"{checkpoint} is not whole on this machine, or lies on another: {checkpoint.attempt.node.name}.")
    found = [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [CheckpointFile(path.relative_to(directory).as_posix(), path.stat().st_size, path) for path in found]


def archive_name(checkpoint: Checkpoint) -> str:
    """The archive's file name without its ending, and the folder in it."""
    return f"run-{checkpoint.run_id}-step-{checkpoint.step}"


def archive_bytes(files: list[CheckpointFile], folder: str) -> int:
    """How large the archive is, so that a browser can show how far it is."""
    return sum(len(_header(file, folder)) + file.size_bytes + _padding(file.size_bytes) for file in files) + 2 * _BLOCK


async def archive(files: list[CheckpointFile], folder: str) -> AsyncIterator[bytes]:
    """The tar, piece by piece; nothing of it is held. Raises OSError when a file is shorter than it was."""
    for file in files:
        yield _header(file, folder)
        async for piece in pieces(file.path, file.size_bytes):
            yield piece
        yield bytes(_padding(file.size_bytes))
    yield bytes(2 * _BLOCK)


def _header(file: CheckpointFile, folder: str) -> bytes:
    info = tarfile.TarInfo(f"{folder}/{file.name}")
    info.size, info.mode, info.mtime = file.size_bytes, 0o644, int(file.path.stat().st_mtime)
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> int:
    return -size % _BLOCK
