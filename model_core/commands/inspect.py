"""Prints the columns and the first rows of a source as JSON, within limits of memory and time.

With `--prepare`, a PrepareConfig as JSON, they are read under its settings, and it is told what the mapping makes of them.

Files come from strangers: whoever looks into one does so here, where a parser that runs wild harms nobody else.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import DataError, ModelCoreError
from model_core.sources import inspect_file

MAX_CPU_SECONDS = 30
MAX_MEMORY_BYTES = 4 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source, the file if it reads one, and under which settings."""
    parser.add_argument("source")
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--prepare", default="", help="a PrepareConfig as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints {"found": …} or {"error": {"message", "field"}}; exit status 2 with the latter."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        print(json.dumps({"found": _found(args)}))
    except ModelCoreError as error:
        return _refused(error.message, error.field)
    except MemoryError:
        return _refused(f"Its beginning takes more than {MAX_MEMORY_BYTES >> 30} GiB of memory.", "file")
    return 0


def _found(args: argparse.Namespace) -> dict[str, Any]:
    if args.prepare:
        from model_core.preparation.looking import look

        return look(PrepareConfig.parse(json.loads(args.prepare)), args.path)
    if args.path is None:
        raise DataError("Name the file to look into.", field="file")
    return inspect_file(args.path, args.source)


def _refused(message: str, field: str) -> int:
    print(json.dumps({"error": {"message": message, "field": field}}))
    return 2
