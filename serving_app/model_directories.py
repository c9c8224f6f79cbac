"""Directories of others' models, directly under R1_MODELS: which lie there, and what is in one.

The operator puts them there; a person names one of those that are listed and gives no path.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from model_core.errors import CheckpointError
from model_core.published import Published, look
from r1platform.lib.storage import UnsafePath, open_artifact

MAX_LISTED = 200


def names_found() -> list[str]:
    """Names of what lies there, by name; links that lead out are listed too, so that it can be said why they are refused."""
    root = Path(settings.R1_MODELS)
    if not root.is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(root) if _is_name(entry.name) and (entry.is_dir() or entry.is_symlink()))
    return names[:MAX_LISTED]


def directory_of(name: str) -> Path:
    """The directory of this name. Raises CheckpointError at `name` when there is none, or it lies elsewhere."""
    try:
        found = open_artifact(Path(settings.R1_MODELS), name) if _is_name(name) else None
    except UnsafePath:
        raise CheckpointError(f"“{name}” is a link that leads out of R1_MODELS. Put the directory there.", field="name") from None
    except (OSError, ValueError):
        found = None
    if found is None or not found.is_dir():
        raise CheckpointError(f"There is no directory “{name[:200]}” under R1_MODELS of this machine.", field="name")
    return found


def looked(name: str) -> Published:
    """What lies in the directory; looked at anew when a name, size or time in it has changed. Raises CheckpointError at `name`."""
    directory = directory_of(name)
    return _looked(directory, _fingerprint(directory))


@lru_cache(maxsize=MAX_LISTED)
def _looked(directory: Path, fingerprint: tuple[tuple[str, int, int, int], ...]) -> Published:
    return look(directory)


def _fingerprint(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Of every entry, links by themselves."""
    found = []
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - thousands of them on each listing
            try:
                told = os.lstat(path)
            except FileNotFoundError:
                continue
            found.append((path, told.st_size, told.st_mtime_ns, told.st_ino))
    return tuple(sorted(found))


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and not name.startswith(".") and "/" not in name and name.isprintable()
