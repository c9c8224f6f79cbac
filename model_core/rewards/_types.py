"""What a reward sees and what it says. A reward that cannot judge says `Score.unscored(reason)`, never 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol


@dataclass(frozen=True)
class Sample:
    """One completion with what is needed to judge it."""

    prompt: str
    completion: str
    expected: str | None
    task: str
    """File name in model_core/tasks; empty: none."""
    num_tokens: int
    finish_reason: str
    """"stop" or "length"."""

    @cached_property
    def reasoning(self) -> str:
        """Text before `</think>`, without an opening tag (which R1's template may have written already)."""
        head, tag, _tail = self.completion.partition("</think>")
        return head.removeprefix("<think>") if tag or self.completion.startswith("<think>") else ""

    @cached_property
    def answer(self) -> str:
        """Text after `</think>`; the whole text when there is no thinking at all; empty while still thinking."""
        head, tag, tail = self.completion.partition("</think>")
        if tag:
            return tail.strip()
        return "" if head.startswith("<think>") else head.strip()


@dataclass(frozen=True)
class Score:
    """A value within the reward's bounds and why; `value` None means unscored."""

    value: float | None
    detail: str = ""

    @classmethod
    def unscored(cls, reason: str) -> Score:
        return cls(None, reason)


class Reward(Protocol):
    """One component of the reward."""

    bounds: tuple[float, float]

    def __call__(self, sample: Sample) -> Score: ...
