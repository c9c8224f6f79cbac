"""The tokens of an answer with their probabilities, and what else each could have been."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving_app.models import Message


@dataclass(frozen=True)
class Token:
    """A token at its place; `level` is 0 for one that was all but certain, up to 4 for one that was unlikely."""

    place: int
    text: str
    probability: float
    others: tuple[tuple[int, str, float], ...]
    """Number, text and probability of the likeliest others at this place."""

    @property
    def level(self) -> int:
        return next((level for level, least in enumerate((0.9, 0.6, 0.3, 0.1)) if self.probability >= least), 4)

    @property
    def words(self) -> str:
        """What a reader hears of it."""
        told = ", ".join(f"{text!r} {probability:.1%}" for _number, text, probability in self.others)
        return f"{self.text!r}, {self.probability:.1%}" + (f"; else {told}" if told else "")


def message_tokens(message: Message) -> list[Token]:
    """The kept tokens of an answer in order."""
    return [
        Token(
            place, text, math.exp(logprob),
            tuple((n, other, math.exp(value)) for n, (other, value) in enumerate(likeliest) if other != text),
        )
        for place, (text, logprob, likeliest) in enumerate(message.tokens or [])
    ]  # fmt: skip
