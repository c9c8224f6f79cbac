"""Where files lie under R1_HOME: each path follows from a row's id, never from a user's text."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings


class UnsafePath(Exception):
    """A relative name that leads out of its directory; it is refused."""


def home() -> Path:
    return Path(settings.R1_HOME)


def run_dir(run_id: int, attempt_number: int) -> Path:
    """Run directory of one attempt."""
    return home() / "runs" / str(int(run_id)) / str(int(attempt_number))


def version_dir(version_id: int) -> Path:
    """Directory of one preparation of a dataset; its `data/` is what runs read."""
    return home() / "datasets" / str(int(version_id))


def evaluation_dir(evaluation_id: int) -> Path:
    """Directory of one evaluation: its questions, every answer, the result."""
    return home() / "evaluations" / str(int(evaluation_id))


def upload_path(upload_id: int) -> Path:
    """The file a person sent."""
    return home() / "uploads" / str(int(upload_id))


def replica_dir(replica_id: int) -> Path:
    """Log and configuration of one engine process."""
    return home() / "deployments" / str(int(replica_id))


def open_artifact(root: Path, relative: str) -> Path:
    """The real path of `relative` below `root`, which must exist there.

    Raises UnsafePath when it leads outside, also through a link, and FileNotFoundError when nothing is there.
    """
    if "\x00" in relative:
        raise UnsafePath("A file name cannot hold a zero byte.")
    base = root.resolve()
    found = (base / relative).resolve()
    if not found.is_relative_to(base):
        raise UnsafePath(f"“{relative}” leads out of its directory; name a file inside it.")
    if not found.exists():
        raise FileNotFoundError(found)
    return found
