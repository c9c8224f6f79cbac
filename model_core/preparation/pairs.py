"""Filters on rows with two answers, `chosen` and `rejected`: a filter knows one completion, and is asked with each of them.

A row is dropped when any of its texts would be. What a filter rewrites goes back to the answer that it was. Filters that look
at prompts alone, and rows without two answers, are asked once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from model_core.filters._judging import Drop

PAIR = ("chosen", "rejected")
TEXTS = ("prompt", "completion", *PAIR)
"""Fields of a row that a filter may rewrite."""


def why_dropped(step: Any, row: dict[str, Any]) -> Drop | None:
    """What the filter says of the row."""
    if "chosen" not in row or not _reads_completion(step):
        drop: Drop | None = step.why_dropped(row)
        return drop
    noted: Counter[str] = step.noted if hasattr(step, "noted") else Counter()
    before = noted.copy()
    for name, view in _views(row):
        drop = step.why_dropped(view)
        if drop is not None:
            return drop if name == "completion" else Drop(drop.reason, f"{name}: {drop.detail}")
        row["prompt"], row[name] = view["prompt"], view["completion"]
    once = before + Counter(dict.fromkeys(noted - before, 1))  # it counts rows, not texts
    noted.clear()
    noted.update(once)
    return None


def with_both(row: dict[str, Any]) -> dict[str, Any]:
    """The row as a filter that remembers rows sees it: everything that was answered is its completion."""
    if "chosen" not in row:
        return row
    return {**row, "completion": "\n".join(text for name in TEXTS[1:] if (text := row[name]))}


def _views(row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The row with each of its answers as the completion."""
    for name in TEXTS[1:]:
        if row[name] is not None:
            yield name, {**row, "completion": row[name]}


def _reads_completion(step: Any) -> bool:
    return getattr(step, "reads_completion", False) or getattr(step.config, "text", "") in ("completion", "all")
