"""Cuts a growing text into what was thought and what is answered: `<think>REASONING</think>ANSWER`.

The rule, for every engine: text before `</think>` was thought, also when its opening mark is missing; a text without any
mark is an answer. So a text that does not begin with `<think>` is held back until `</think>` or the end has come, and a
model that answers without thinking does not stream. `thinking` says that the prompt's template has opened the thinking.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class ReasoningSplitter:
    """Feed pieces in, get (reasoning, content) pieces out; joined they are the text without its marks."""

    def __init__(self, *, thinking: bool = False) -> None:
        self.thinking = thinking
        self._undecided = not thinking
        self._held = ""

    def feed(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """What is new on both sides; `last` gives back what was held."""
        if not self.thinking and not self._undecided:
            return "", piece
        looked = max(0, len(self._held) - len(CLOSE))
        text, self._held = self._held + piece, ""
        if self._undecided:
            text = self._open(text)
        place = text.find(CLOSE, looked if self._undecided else 0)
        if place >= 0:
            self.thinking = self._undecided = False
            return text[:place], text[place + len(CLOSE) :]
        if last:
            return (text, "") if self.thinking else ("", text)
        keep = len(text) if self._undecided else _beginning(text, CLOSE)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], ""

    def _open(self, text: str) -> str:
        """The text after an opening mark, or all of it as long as there is none."""
        begun = text.lstrip()
        if not begun.startswith(OPEN):
            return text
        self.thinking, self._undecided = True, False
        return begun[len(OPEN) :]


def _beginning(text: str, mark: str) -> int:
    """Length of the longest end of `text` with which `mark` may begin."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
