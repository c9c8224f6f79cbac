"""Drops rows whose prompt, or whole text, came before, ignoring case and space.

Source: Lee et al., “Deduplicating Training Data Makes Language Models Better” (arXiv 2107.06499); ours compares whole texts.
"""

from __future__ import annotations

import hashlib
from typing import Any

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop, TextName, text_of
from model_core.registry import registered

_LOWER = bytes(ord(" ") if chr(code).isspace() else code for code in range(128)).lower() + bytes(range(128, 256))
"""What becomes of each byte of ASCII text."""
_NAMES = {"prompt": "prompt", "completion": "completion", "all": "text"}


@registered
class ExactDuplicates:
    """Keeps the first of equal rows; about 90 bytes of memory a row."""

    class Config(StrictModel):
        """What makes two rows equal."""

        text: TextName = "prompt"
        """Which text is compared: the prompt, the completion, or both together."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._seen: set[bytes] = set()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        return self.compare(self.sketch(row))

    def sketch(self, row: dict[str, Any]) -> bytes:
        """The hash under which the row is remembered."""
        text = text_of(row, self.config.text)
        return hashlib.blake2b(_plain_ascii(text) if text.isascii() else _plain(text), digest_size=16).digest()

    def compare(self, sketch: bytes) -> Drop | None:
        """Whether it came before; remembers it."""
        if sketch in self._seen:
            return Drop("came before", f"the same {_NAMES[self.config.text]} came before")
        self._seen.add(sketch)
        return None


def _plain(text: str) -> bytes:
    """Without case, and one blank for any white space."""
    return " ".join(text.casefold().split()).encode()


def _plain_ascii(text: str) -> bytes:
    """The same without cutting the text into words."""
    found = text.encode().translate(_LOWER).strip()
    while b"  " in found:
        found = found.replace(b"  ", b" ")
    return found
