"""Drops rows whose prompt came before, ignoring case and space.

Source: Lee et al., “Deduplicating Training Data Makes Language Models Better” (arXiv 2107.06499); ours compares prompts.
"""

from __future__ import annotations

import hashlib
from typing import Any

from model_core.config.base import StrictModel
from model_core.registry import registered


@registered
class ExactDuplicates:
    """Keeps the first of equal prompts; 16 bytes of memory a row."""

    class Config(StrictModel):
        """No settings."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._seen: set[bytes] = set()

    def why_dropped(self, row: dict[str, Any]) -> str | None:
        """The reason as a sentence, or None to keep the row."""
        key = hashlib.blake2b(" ".join(row["prompt"].casefold().split()).encode(), digest_size=16).digest()
        if key in self._seen:
            return "the same prompt came before"
        self._seen.add(key)
        return None
