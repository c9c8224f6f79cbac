"""Cuts a growing text into what was thought and what is answered: `<think>REASONING</think>ANSWER`.

The rule, for every engine, is that of `model_core.thinking`, here for a text that is still being written: the first letters
decide, and both sides stream. `thinking` says that the prompt's template has written the opening mark.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class ReasoningSplitter:
    """Feed pieces in, get (reasoning, content) pieces out; joined they are the text without its marks."""

    def __init__(self, *, thinking: bool = False) -> None:
        self.thinking = thinking
        self._has_begun = thinking
        self._held = ""

    def feed(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """What is new on both sides; `last` gives back what was held."""
        text, self._held = self._held + piece, ""
        if not self._has_begun:
            text = self._begin(text, last=last)
        if not self.thinking:
            return "", text
        thought, mark, said = text.partition(CLOSE)
        if mark:
            self.thinking = False
            return thought, said
        cut = len(text) if last else len(text) - _beginning(text, CLOSE)
        self._held = text[cut:]
        return text[:cut], ""

    def _begin(self, text: str, *, last: bool) -> str:
        """The text after the mark that it begins with; nothing as long as that may still become one."""
        begun = text.lstrip()
        if not last and any(mark.startswith(begun) and mark != begun for mark in (OPEN, CLOSE)):
            self._held = text
            return ""
        self._has_begun, self.thinking = True, begun.startswith(OPEN)
        mark = next((mark for mark in (OPEN, CLOSE) if begun.startswith(mark)), "")
        return begun.removeprefix(mark) if mark else text


def _beginning(text: str, mark: str) -> int:
    """Length of the longest end of `text` with which `mark` may begin."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
