"""One completion while it grows: stop texts, thinking and content apart, log-probabilities in OpenAI's shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from model_core.serving.backend import Piece, Scored
from model_core.serving.reasoning import ReasoningSplitter


@dataclass
class Answer:
    """Takes pieces and gives what may be shown. A stop text ends it, in the thinking as well as after it."""

    splitter: ReasoningSplitter | None
    stops: list[str]
    reasoning: str = ""
    content: str = ""
    num_tokens: int = 0
    num_reasoning: int = 0
    finish_reason: str | None = None
    scored: list[Scored] = field(default_factory=list)
    _held: str = ""

    def feed(self, piece: Piece) -> tuple[str, str]:
        """(reasoning, content) that is new."""
        self.num_tokens = piece.num_tokens
        self.scored.extend(piece.scored)
        text, stopped = self._until_stop(piece.text, last=piece.finish_reason is not None)
        self.finish_reason = "stop" if stopped else piece.finish_reason
        last = self.finish_reason is not None
        thought, said = self.splitter.feed(text, last=last) if self.splitter else ("", text)
        if self.splitter and (thought or self.splitter.thinking):
            self.num_reasoning = piece.num_tokens
        self.reasoning, self.content = self.reasoning + thought, self.content + said
        return thought, said

    def _until_stop(self, said: str, *, last: bool) -> tuple[str, bool]:
        text, self._held = self._held + said, ""
        places = [place for place in (text.find(stop) for stop in self.stops) if place >= 0]
        if places:
            return text[: min(places)], True
        if last or not self.stops:
            return text, False
        keep = max(
            (size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0
        )
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut], False


def chat_logprobs(scored: list[Scored]) -> dict[str, Any]:
    """As `choices[].logprobs` of a chat has it."""
    content = [
        {**_token(one.text, one.logprob), "top_logprobs": [_token(text, logprob) for text, logprob in one.top]}
        for one in scored
    ]
    return {"content": content, "refusal": None}


def text_logprobs(scored: list[Scored], *, offset: int = 0) -> dict[str, Any]:
    """As `choices[].logprobs` of a text completion has it; `offset` is where the first token begins in the text."""
    places = [offset + sum(len(before.text) for before in scored[:number]) for number in range(len(scored))]
    return {
        "tokens": [one.text for one in scored], "token_logprobs": [one.logprob for one in scored],
        "top_logprobs": [dict(reversed(one.top)) for one in scored], "text_offset": places,
    }  # fmt: skip


def _token(text: str, logprob: float) -> dict[str, Any]:
    """A token that is part of a character has no bytes that could be told from its text."""
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}
