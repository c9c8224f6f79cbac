"""What a filter answers, and which text of a row it looks at.

A filter's `why_dropped(row)` gives a `Drop`, or None to keep the row; it may rewrite the row's texts in place. Where many rows
together are faster, `why_dropped_each(rows)` gives the same for each. A filter that remembers earlier rows has two halves:
`sketch(row)`, which needs no memory and may run in another process, and `compare(sketch)`, which is asked in the order of the
rows. What a filter wants counted of rows that it keeps, it adds to its `noted`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

TextName = Literal["prompt", "completion", "all"]


class Drop(NamedTuple):
    """Why a row is dropped: the rule, by which rows are counted, and a sentence about this row."""

    reason: str
    detail: str


def text_of(row: dict[str, Any], name: TextName) -> str:
    """The prompt, the completion (empty when there is none), or both with a line break between."""
    if name == "prompt":
        return str(row["prompt"])
    completion = row["completion"] or ""
    if name == "completion":
        return str(completion)
    return f"{row['prompt']}\n{completion}" if completion else str(row["prompt"])


def share(part: float, whole: float) -> str:
    """A share in words for a sentence."""
    return f"{100 * part / whole:.0f} %"
