"""Prepares a dataset version: reads DIR/config.json, writes DIR/data, DIR/events.jsonl and, last, DIR/result.json.

config.json is {"prepare": PrepareConfig, "source_path": file or null}. Exit status 0: data is there; 2: an error that
the user can mend, told in result.json.
"""

from __future__ import annotations

import argparse
import errno
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import ConfigError, MachineError, ModelCoreError
from model_core.events import EventWriter
from model_core.preparation import prepare
from model_core.rundir import write_json

CONFIG, DATA, EVENTS, RESULT = "config.json", "data", "events.jsonl", "result.json"
TELL_SECONDS = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The directory is all it needs."""
    parser.add_argument("directory", help="directory with a config.json; the data goes to its `data`")


def run(args: argparse.Namespace) -> int:
    """Prepares; see the module for the exit status."""
    directory = Path(args.directory)
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
    try:
        stored = json.loads((directory / CONFIG).read_text())
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ConfigError(f"{directory} has no readable {CONFIG}: {error}.") from error
    asked, source = (stored.get("prepare", {}), stored.get("source_path")) if isinstance(stored, dict) else (None, None)
    if not isinstance(asked, dict) or not isinstance(source, str | None):
        raise ConfigError(f'{directory / CONFIG} must be an object {{"prepare": {{…}}, "source_path": file or null}}.')
    config = PrepareConfig.parse(asked)
    shutil.rmtree(directory / DATA, ignore_errors=True)
    events = EventWriter(directory / EVENTS)
    told = 0.0

    def tell(fraction: float, words: str) -> None:
        nonlocal told
        if fraction >= 1 or time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            events.emit("progress", stage=words, step=0, total=0, fraction=fraction, remaining_seconds=None)

    try:
        return prepare(config, out=directory / DATA, source_path=Path(source) if source else None, on_progress=tell)
    finally:
        events.close()


def _failed(directory: Path, error: ModelCoreError) -> int:
    print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
    told = {"type": type(error).__name__, "message": error.message, "field": error.field}
    write_json(directory / RESULT, {"status": "failed", "manifest": None, "error": told})
    return 2
