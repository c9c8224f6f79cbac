"""Rated conversations, one JSON object a line: {"messages": [{"role", "content"}, …], "rating": number, true or false}.

Source: none, ours; the messages are those of the OpenAI chat format. What was said before the rated answer is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from model_core.registry import registered
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._chat import turns
from model_core.sources._limits import RowLimit
from model_core.sources.jsonl import objects


@registered
class Chats:
    """The last answer of each conversation that was rated well enough; finished rows that need no mapping."""

    is_file = True
    is_mapped = True

    class Config(RowLimit):
        """Which conversations become rows."""

        min_rating: float = Field(1.0)
        """Least rating; a thumb up (`true`) is 1 and a thumb down (`false`) is 0."""
        keep_unrated: bool = False
        """Takes conversations without a rating too."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
        """Yields finished rows; `meta` has rating and num_turns. A conversation that is none is a bad row."""
        return self.config.limited(self._rows(path, on_bad))

    def _rows(self, path: Path, on_bad: OnBad) -> Iterator[dict[str, Any]]:
        for number, chat in enumerate(objects(path, on_bad), start=1):
            try:
                rating = _rating(chat.get("rating"), number)
                prompt, completion, num_turns = turns(chat.get("messages"), number)
            except BadRow as bad:
                on_bad(bad)
                continue
            if self.config.keep_unrated if rating is None else rating >= self.config.min_rating:
                yield {"prompt": prompt, "completion": completion, "answer": None, "task": "",
                       "meta": {"rating": rating, "num_turns": num_turns}}  # fmt: skip


def _rating(value: object, number: int) -> float | None:
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else float(value)
    raise BadRow(f"Conversation {number}: the rating {value!r:.60} is no number.", reason="rating is no number", excerpt=value)
