"""The first rows of a source, and what a mapping makes of them: what a form shows before anything is prepared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation.mapping import mapped
from model_core.sources import MAX_VALUE_CHARS, NUM_PREVIEW, SOURCES, shown
from model_core.sources._bad import BadRow

NUM_MAPPED = 5


def look(config: PrepareConfig, path: Path | None = None) -> dict[str, Any]:
    """{"columns", "preview", "num_rows_seen", "mapped": [{"row"} or {"why"}]}; a bad row is told where it stands.

    Raises DataError when the beginning cannot be read or has no row, ConfigError for settings that cannot work.
    """
    cls = SOURCES.get(config.source)
    source = cls(cls.Config.parse(config.source_config, prefix="source_config"))
    is_mapped = getattr(cls, "is_mapped", False) or hasattr(source, "split_rows")
    bad: list[BadRow] = []
    rows = list(itertools.islice(_rows(source, config, path, bad), NUM_PREVIEW))
    if not rows:
        words = f"for example: {bad[0].message}" if bad else "or none that these settings keep"
        raise DataError(f"There are no rows, {words}", field="file")
    became = [{"row": _cut(row)} if is_mapped else _mapped(row, config, n) for n, row in enumerate(rows[:NUM_MAPPED], start=1)]
    return {**shown(rows), "mapped": became + [{"why": one.message} for one in bad[:NUM_MAPPED]]}


def _rows(source: Any, config: PrepareConfig, path: Path | None, bad: list[BadRow]) -> Iterator[dict[str, Any]]:
    if hasattr(source, "split_rows"):
        yield from (row for _split, row in source.split_rows(config.seed))
        return
    if source.is_file and path is None:
        raise DataError(f"The source “{config.source}” needs a file.", field="source")
    yield from source.rows(path, bad.append)


def _mapped(row: dict[str, Any], config: PrepareConfig, number: int) -> dict[str, Any]:
    try:
        return {"row": _cut(mapped(row, config.mapping, number))}
    except BadRow as bad:
        return {"why": bad.message}


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """Texts by their beginning and their end, where the answer is."""
    return {name: _ends(value) if isinstance(value, str) else value for name, value in row.items()}


def _ends(text: str) -> str:
    half = MAX_VALUE_CHARS // 2
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:half]} … {text[-half:]}"
