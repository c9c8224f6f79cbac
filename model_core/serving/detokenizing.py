"""Text from tokens that come one by one: nothing is said twice, and no character before it is whole."""

from __future__ import annotations

from typing import Any

from model_core.data.tokenizer import decode


class Detokenizer:
    """Decodes from the last settled place on, since what a token reads as can depend on those before it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._tokens: list[int] = []
        self._settled = 0
        self._shown = 0

    def feed(self, token: int) -> str:
        """The text that is new with this token; empty while a character is unfinished."""
        self._tokens.append(token)
        before = decode(self.tokenizer, self._tokens[self._settled : self._shown])
        now = decode(self.tokenizer, self._tokens[self._settled :])
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        self._settled, self._shown = self._shown, len(self._tokens)
        return now[len(before) :]

    def finish(self) -> str:
        """What is left, an unfinished character included."""
        before = decode(self.tokenizer, self._tokens[self._settled : self._shown])
        return decode(self.tokenizer, self._tokens[self._settled :])[len(before) :]
