"""Looks at a stream of server-sent events without parsing it: only the counts are read.

Engines are asked for counts in every event, so that those of an answer that is left early are known; the caller sees only
the counts that were asked for. Pieces are cut at event borders, so that a piece that is held back or dropped is always a
whole event.
"""

from __future__ import annotations

import json
import re
from typing import Any

from model_core.serving.protocol import EVENT_TEXT

_NO_CHOICES = re.compile(rb'"choices": ?\[\]')
_USAGE = re.compile(rb',\s*"usage":\s*(\{(?:[^{}]|\{[^{}]*\})*\}|null)')
"""The counts beside choices. Inside a text of the answer its quotes would be escaped, so it is not found there."""
_BORDER = b"\n\n"
MAX_EVENT_BYTES = 8 << 20


class StreamFilter:
    """Feeds pieces through; takes out the counts that the caller did not ask for, and keeps what they say."""

    def __init__(self, *, keep_usage: bool, keep_counts: bool = False) -> None:
        self.keep_usage, self.keep_counts = keep_usage, keep_counts
        self._usage: dict[str, Any] | None = None
        self._counts = b""
        self.num_events = 0
        self.has_text = False
        self.is_done = False
        self._tail = b""

    @property
    def usage(self) -> dict[str, Any] | None:
        """The newest counts; those beside choices are read when somebody wants them, not at every event."""
        return self._usage or (json.loads(self._counts) if self._counts else None)

    def feed(self, piece: bytes) -> bytes:
        """What of the stream so far is whole and to be passed on."""
        data = self._tail + piece if self._tail else piece
        cut = data.rfind(_BORDER)
        if cut < 0:
            self._tail = data[:MAX_EVENT_BYTES]
            return b""
        whole, self._tail = data[: cut + 2], data[cut + 2 :]
        if not self.has_text:
            self.has_text = EVENT_TEXT.search(whole) is not None
        if b"data: [DONE]" in whole:
            self.is_done = True
        if _NO_CHOICES.search(whole):
            return self._without_usage(whole)
        whole = self._without_counts(whole)
        self.num_events += whole.count(_BORDER)
        return whole

    def _without_usage(self, whole: bytes) -> bytes:
        kept = []
        for event in whole.split(_BORDER)[:-1]:
            if _NO_CHOICES.search(event) and (usage := _usage(event)) is not None:
                self._usage = usage
                if self.keep_usage:
                    kept.append(event + _BORDER)
                continue
            kept.append(self._without_counts(event) + _BORDER)
            self.num_events += 1
        return b"".join(kept)

    def _without_counts(self, data: bytes) -> bytes:
        """Keeps the newest counts beside choices, and takes them out of what is passed on."""
        if b'"usage"' not in data:
            return data
        if found := [counts for counts in _USAGE.findall(data) if counts != b"null"]:
            self._counts = found[-1]
        return data if self.keep_counts else _USAGE.sub(b"", data)


def _usage(event: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(event.removeprefix(b"data:"))
    except ValueError:
        return None
    usage = found.get("usage") if isinstance(found, dict) and not found.get("choices") else None
    return usage if isinstance(usage, dict) else None


def reasoning_tokens(usage: dict[str, Any]) -> int:
    """Thinking tokens of a usage object, where engines put them."""
    details = usage.get("completion_tokens_details")
    found = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return int(found or usage.get("reasoning_tokens") or 0)


def cached_tokens(usage: dict[str, Any]) -> int:
    """Prompt tokens of a usage object that the engine had in its prefix cache."""
    details = usage.get("prompt_tokens_details")
    found = details.get("cached_tokens") if isinstance(details, dict) else None
    return int(found or 0)
