"""Reads a prepared dataset directory: `dataset.json`, `train.jsonl`, `held_out.jsonl`. Making one is `preparation`.

A row is {"prompt", "completion", "answer", "task", "meta", "level"}, and one of a preference has "chosen" and "rejected" too;
see `model_core.config.prepare` for where they come from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model_core.errors import DataError


@dataclass(frozen=True)
class Row:
    """One problem. `completion` is a demonstration; `task` names the file of model_core/tasks that verifies answers."""

    prompt: str
    completion: str | None = None
    answer: str | None = None
    task: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    level: int = 0
    """Difficulty as the task counts it; 0: not known."""
    chosen: str | None = None
    rejected: str | None = None
    """Two answers of which the first is preferred; a row has both or neither."""


def read_rows(directory: str | Path, split: str, *, limit: int | None = None) -> list[Row]:
    """The rows of `split` ("train" or "held_out") in file order, at most `limit`.

    Raises DataError when the file is missing or a line is not a row; an empty file gives an empty list.
    """
    path = Path(directory) / f"{split}.jsonl"
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if limit is not None and len(rows) >= limit:
                    break
                rows.append(_row(line, path, number))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: the dataset is not prepared. Prepare it again.",
                        field="dataset") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}). Prepare the dataset again.",
                        field="dataset") from error
    return rows


def _row(line: str, path: Path, number: int) -> Row:
    try:
        values = json.loads(line)
        row = Row(
            prompt=values["prompt"], completion=values.get("completion"), answer=values.get("answer"),
            task=values.get("task") or "", meta=values.get("meta") or {}, level=values.get("level") or 0,
            chosen=values.get("chosen"), rejected=values.get("rejected"),
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}, line {number}: not a row with a prompt ({error}). Prepare the dataset again.",
                        field="dataset") from error
    if not isinstance(row.prompt, str) or not isinstance(row.completion, str | None):
        raise DataError(f"{path}, line {number}: prompt and completion must be text. Prepare the dataset again.",
                        field="dataset")
    if not isinstance(row.chosen, str | None) or type(row.chosen) is not type(row.rejected):
        raise DataError(f"{path}, line {number}: chosen and rejected must be two texts, or neither there. Prepare the dataset "
                        "again.", field="dataset")
    if not isinstance(row.answer, str | None):
        if isinstance(row.answer, bool) or not isinstance(row.answer, int | float):
            raise DataError(f"{path}, line {number}: the answer must be text or a number, not {row.answer!r:.60}. "
                            "Prepare the dataset again.", field="dataset")
        row = replace(row, answer=json.dumps(row.answer))
    if not isinstance(row.level, int):
        raise DataError(f"{path}, line {number}: level must be a whole number, not {row.level!r}. Prepare the dataset again.",
                        field="dataset")
    return row
