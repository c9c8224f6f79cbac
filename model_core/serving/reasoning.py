"""Cuts a growing text into what was thought and what is answered: `<think>REASONING</think>ANSWER`.

A piece that may be the beginning of a mark is held back until it is clear. DeepSeek-R1 leaves the opening mark out when
its template has written it; then `thinking` says that the text begins inside.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class ReasoningSplitter:
    """Feed pieces in, get (reasoning, content) pieces out; joined they are the text without its marks."""

    def __init__(self, *, thinking: bool = False) -> None:
        self.thinking = thinking
        self._begun = thinking
        self._held = ""

    def feed(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """What is new on both sides; `last` gives back what was held."""
        text, out = self._held + piece, {True: "", False: ""}
        self._held = ""
        while text:
            mark = CLOSE if self.thinking else OPEN
            looks_for = self.thinking or not self._begun
            place = text.find(mark) if looks_for else -1
            if not self.thinking and text[: max(place, 0)].strip():
                place = -1  # an answer has begun; a mark in it is text
            if place < 0:
                keep = 0 if last or not looks_for else _beginning(text, mark)
                cut = len(text) - keep
                out[self.thinking] += text[:cut]
                self._begun = self._begun or bool(text[:cut].strip())
                self._held = text[cut:]
                break
            out[self.thinking] += text[:place]
            text, self.thinking, self._begun = text[place + len(mark) :], not self.thinking, True
        return out[True], out[False]


def _beginning(text: str, mark: str) -> int:
    """Length of the longest end of `text` with which `mark` may begin."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
