"""What a reward sees and what it says. A reward that cannot judge says `Score.unscored(reason)`, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol


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
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """`Row.meta`: what the task put into it, which its verifier may need."""

    @cached_property
    def reasoning(self) -> str:
        """Text before `</think>`, without an opening tag (which R1's template may have written already)."""
        head, tag, _tail = self.completion.partition("</think>")
        if head.lstrip().startswith("<think>"):
            return head.lstrip().removeprefix("<think>")
        return head if tag else ""

    @cached_property
    def answer(self) -> str:
        """Text after `</think>`, without `<answer>` around it; the whole text when there is no thinking; empty while thinking."""
        head, tag, tail = self.completion.partition("</think>")
        text = tail.strip() if tag else "" if head.lstrip().startswith("<think>") else head.strip()
        is_wrapped = text.startswith("<answer>") and text.endswith("</answer>")
        return text.removeprefix("<answer>").removesuffix("</answer>").strip() if is_wrapped else text


@dataclass(frozen=True)
class Score:
    """A value within the reward's bounds and why; `value` None means unscored."""

    value: float | None
    detail: str = ""

    @classmethod
    def unscored(cls, reason: str) -> Score:
        return cls(None, reason)


def with_opening(completion: str) -> str:
    """A demonstration of it: with the opening mark that a model may leave out, or whose template had written it."""
    is_bare = "</think>" in completion and not completion.lstrip().startswith("<think>")
    return f"<think>{completion}" if is_bare else completion


class Reward(Protocol):
    """One component of the reward.

    It may also have `may_hang(sample) -> bool`: whether judging the sample could take for ever. It is then judged in a
    process of its own, within `config.deadline_seconds`; see `model_core.rewards._apart`. One that judges many sooner together
    has `score_many(samples) -> list[Score]`, and `required` names settings that it cannot do without, with the remedy of each.
    """

    bounds: tuple[float, float]

    def __call__(self, sample: Sample) -> Score: ...
