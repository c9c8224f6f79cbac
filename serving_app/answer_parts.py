"""Parts of asking for an answer: going on with one that has begun, and what engines tell of single tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NUM_LIKELIEST = 5
"""Alternatives that are asked for at each place."""
_DIGITS = 4


@dataclass(frozen=True)
class Spent:
    """What an exchange used that was left when thinking came to its budget."""

    num_pieces: int = 0
    completion_tokens: int = 0
    prompt_tokens: int | None = None
    device_seconds: float = 0.0


def going_on(body: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The request for what follows `prefix`, the beginning of the answer with its marks."""
    turns = [*body["messages"], {"role": "assistant", "content": prefix}]
    return {**body, "messages": turns, "continue_final_message": True}


def tokens_of(logprobs: Any, *, room: int) -> list[Any]:
    """[text, log-probability, the likeliest as [text, log-probability]] of each token of a chunk, `room` of them at most."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [
        [*_pair(token), [_pair(other) for other in token.get("top_logprobs") or []]] for token in (content or [])[: max(0, room)]
    ]


def _pair(token: dict[str, Any]) -> list[Any]:
    """A zero byte cannot be kept, and no engine gives a probability above 1."""
    text = str(token.get("token", "")).replace("\x00", "").encode(errors="replace").decode()
    return [text, round(min(0.0, float(token.get("logprob") or 0.0)), _DIGITS)]
