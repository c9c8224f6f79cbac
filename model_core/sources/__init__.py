"""One file a source; see `docs/extending.md` for its shape. Also: which source reads a file, and what is in it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from model_core.errors import DataError
from model_core.registry import Registry

SOURCES = Registry("model_core.sources", kind="source")
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
    ".txt": "text", ".text": "text",
}  # fmt: skip
PACKED = (".gz", ".zst")
NUM_PREVIEW = 20
MAX_VALUE_CHARS = 500
MAX_NAME_CHARS = 100


def format_of(file_name: str) -> str:
    """The source that reads a file of this name. Raises DataError naming the endings that are known."""
    path = Path(file_name.lower())
    path = path.with_suffix("") if path.suffix in PACKED else path
    found = SUFFIXES.get(path.suffix)
    if found is None or found not in SOURCES.names():
        known = ", ".join(sorted(suffix for suffix, name in SUFFIXES.items() if name in SOURCES.names()))
        raise DataError(f"“{file_name[:100]}” is of no kind that is read here. Send a file ending in {known}.", field="file")
    return found


def inspect_file(path: Path, source: str) -> dict[str, Any]:
    """Columns and the first rows of a file, values cut short: {"columns", "preview", "num_rows_seen"}.

    Reads no more than it shows. Raises DataError when there is no such file, or its beginning cannot be read or is empty.
    """
    kind = SOURCES.get(source)
    if not kind.is_file:
        raise DataError(f"The source “{source}” reads no file.", field="source")
    if not path.exists():
        raise DataError(f"There is no file “{path}”.", field="file")
    rows = list(itertools.islice(kind(kind.Config()).rows(path), NUM_PREVIEW))
    if not rows:
        raise DataError("The file has no rows.", field="file")
    return shown(rows)


def shown(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What `inspect_file` says of these rows. Raises DataError for a name of a field that is too long."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    if long := next((name for name in columns if len(name) > MAX_NAME_CHARS), None):
        raise DataError(f"A field's name has at most {MAX_NAME_CHARS} characters; “{long[:40]}…” has {len(long)}.", field="file")
    preview = [{str(name): _cut(value) for name, value in row.items()} for row in rows]
    return {"columns": columns, "preview": preview, "num_rows_seen": len(rows)}


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else None
    if text is None:
        return value if isinstance(value, int | float | bool) or value is None else str(value)[:MAX_VALUE_CHARS]
    return text[:MAX_VALUE_CHARS]
