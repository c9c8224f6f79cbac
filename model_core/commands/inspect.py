"""Prints the columns and the first rows of a file as JSON, within limits of memory and time.

Files come from strangers: whoever looks into one does so here, where a parser that runs wild harms nobody else.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

from model_core.errors import ModelCoreError
from model_core.sources import inspect_file

MAX_CPU_SECONDS = 30
MAX_MEMORY_BYTES = 4 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source that reads the file, and the file."""
    parser.add_argument("source")
    parser.add_argument("path", type=Path)


def run(args: argparse.Namespace) -> int:
    """Prints {"found": …} or {"error": {"message", "field"}}; exit status 2 with the latter."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        print(json.dumps({"found": inspect_file(args.path, args.source)}))
    except ModelCoreError as error:
        return _refused(error.message, error.field)
    except MemoryError:
        return _refused(f"Its beginning takes more than {MAX_MEMORY_BYTES >> 30} GiB of memory.", "file")
    return 0


def _refused(message: str, field: str) -> int:
    print(json.dumps({"error": {"message": message, "field": field}}))
    return 2
