"""Prepares a dataset version: reads DIR/config.json, writes DIR/data, DIR/events.jsonl and, last, DIR/result.json.

DIR/counts.json has what became of the rows so far: read, bad, kept and dropped by each filter, with examples; written
anew every second and once more at the end, also when that is an error.

config.json is {"prepare": PrepareConfig, "source_path": file or null, "benchmarks": {name: file}}; the last may be missing
and is what the filter on contamination compares with. A result.json of an earlier time is gone as soon as this one begins.
Exit status 0: data is there; 2: an error that the user can mend, told in result.json.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import ConfigError, MachineError, ModelCoreError
from model_core.events import EventWriter
from model_core.preparation import prepare
from model_core.rundir import write_json

CONFIG, DATA, EVENTS, RESULT, COUNTS = "config.json", "data", "events.jsonl", "result.json", "counts.json"
TELL_SECONDS, COUNT_SECONDS = 0.25, 1.0
LARGE_BYTES = 16 << 20
"""From this size of the file on the rows are judged by several processes, whose start takes a second."""
MAX_PROCESSES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The directory is all it needs."""
    parser.add_argument("directory", help="directory with a config.json; the data goes to its `data`")


def run(args: argparse.Namespace) -> int:
    """Prepares; see the module for the exit status."""
    directory = Path(args.directory)
    if not directory.is_dir():
        raise ConfigError(f"There is no directory “{directory}”; name one with a {CONFIG}.")
    for name in (RESULT, COUNTS):
        (directory / name).unlink(missing_ok=True)
    try:
        manifest = _prepare(directory)
    except ModelCoreError as error:
        return _failed(directory, error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _failed(directory, MachineError("The disk is full. Free some space and prepare it again."))
    write_json(directory / RESULT, {"status": "succeeded", "manifest": manifest, "error": None})
    return 0


def _prepare(directory: Path) -> dict[str, Any]:
    asked, source, benchmarks = _asked(directory)
    config = PrepareConfig.parse(asked)
    shutil.rmtree(directory / DATA, ignore_errors=True)
    events = EventWriter(directory / EVENTS)
    told = 0.0

    def tell(fraction: float, words: str) -> None:
        nonlocal told
        if fraction >= 1 or time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            events.emit("progress", stage=words, step=0, total=0, fraction=fraction, remaining_seconds=None)

    counts = _Counts(directory / COUNTS)
    try:
        return prepare(
            config, out=directory / DATA, source_path=source, on_progress=tell, benchmarks=benchmarks,
            num_processes=_num_processes(source), on_counts=counts.tell,
        )  # fmt: skip
    finally:
        counts.close()
        events.close()


class _Counts:
    """Writes the counts when some time has passed, and at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._due = path, 0.0
        self._told: Callable[[], dict[str, Any]] | None = None

    def tell(self, told: Callable[[], dict[str, Any]]) -> None:
        self._told = told
        if time.monotonic() > self._due:
            write_json(self._path, told())
            self._due = time.monotonic() + COUNT_SECONDS

    def close(self) -> None:
        if self._told is not None:
            write_json(self._path, self._told())


def _asked(directory: Path) -> tuple[dict[str, Any], Path | None, dict[str, Path]]:
    """What config.json says: the configuration, the source's path, the benchmarks' files. Raises ConfigError."""
    try:
        stored = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{directory} has no readable {CONFIG}: {error}.") from error
    stored = stored if isinstance(stored, dict) else {"prepare": None}
    asked, source, benchmarks = stored.get("prepare", {}), stored.get("source_path"), stored.get("benchmarks") or {}
    is_right = isinstance(asked, dict) and isinstance(source, str | None) and isinstance(benchmarks, dict)
    if not is_right or not all(isinstance(file, str) for file in benchmarks.values()):
        shape = '{"prepare": {…}, "source_path": file or null, "benchmarks": {name: file}}'
        raise ConfigError(f"{directory / CONFIG} must be an object {shape}; the last may be missing.")
    return asked, Path(source) if source else None, {name: Path(file) for name, file in benchmarks.items()}


def _num_processes(source: Path | None) -> int:
    if source is None or not source.is_file() or source.stat().st_size < LARGE_BYTES:
        return 1
    return min(MAX_PROCESSES, len(os.sched_getaffinity(0)))


def _failed(directory: Path, error: ModelCoreError) -> int:
    print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
    told = {"type": type(error).__name__, "message": error.message, "field": error.field}
    write_json(directory / RESULT, {"status": "failed", "manifest": None, "error": told})
    return 2
