"""Reads a benchmark's data and given completions: one JSON object a line, every row used or the file refused.

A row left out would silently be another benchmark, so a broken line, a missing field or a row that does not exist is a
DataError that names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_core.errors import DataError
from model_core.evaluation.benchmarks._types import Benchmark, Problem


def read_problems(benchmark: Benchmark, path: str | Path, *, limit: int | None = None) -> list[Problem]:
    """The problems of a file in its order, at most `limit`. Raises DataError naming file and row, also for no row."""
    problems = []
    for number, row in enumerate(_objects(Path(path), field="data")):
        if limit is not None and number >= limit:
            break
        try:
            problems.append(benchmark.problem(number, row))
        except DataError as error:
            raise DataError(f"{path}: {error.message}", field="data") from error
    if not problems:
        raise DataError(f"{path} has no row; give the benchmark's JSONL file.", field="data")
    return problems


def read_completions(path: str | Path, num_rows: int) -> dict[int, list[str]]:
    """The completions of each row; several lines of one row are its samples, in their order.

    Raises DataError for a line without `row` and `completion` and for a row that the data does not have.
    """
    found: dict[int, list[str]] = {}
    for number, line in enumerate(_objects(Path(path), field="completions"), start=1):
        row, completion = line.get("row"), line.get("completion")
        if isinstance(row, bool) or not isinstance(row, int) or not isinstance(completion, str):
            raise DataError(
                f'{path}, line {number}: a line is {{"row": number, "completion": text}}, not {line!r:.120}.', field="completions")
        if not 0 <= row < num_rows:
            raise DataError(
                f"{path}, line {number}: there is no row {row}; the data has rows 0 to {num_rows - 1}.", field="completions")
        found.setdefault(row, []).append(completion)
    if not found:
        raise DataError(f"{path} has no completion.", field="completions")
    return found


def num_rows(path: str | Path) -> int:
    """How many rows a data file has. Raises DataError when it cannot be read."""
    return sum(1 for _row in _objects(Path(path), field="data"))


def digest(path: str | Path) -> str:
    """SHA-256 of the file, which names the data that a result was measured on."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _objects(path: Path, *, field: str) -> Iterator[dict[str, Any]]:
    """The objects of the lines that are not blank."""
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _object(line, path, number, field)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a JSONL file.", field=field) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text after line {number} ({error.reason}).", field=field) from error


def _object(line: str, path: Path, number: int, field: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()  # half a character is refused here and not when the result is written
    except (json.JSONDecodeError, UnicodeEncodeError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}).", field=field) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number}: not a JSON object but {line.strip()[:80]!r}.", field=field)
    return value
