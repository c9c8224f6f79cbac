"""What a reward sees and what it says. A reward that cannot judge says `Score.unscored(reason)`, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from model_core.thinking import split


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
        """What was thought, by the rule of `model_core.thinking`."""
        return split(self.completion)[0]

    @cached_property
    def answer(self) -> str:
        """What was answered, without `<answer>` around it; the whole text when nothing was thought; empty while thinking."""
        text = split(self.completion)[1].strip()
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


class Reward(Protocol):
    """One component of the reward.

    It may also have `may_hang(sample) -> bool`: whether judging the sample could take for ever. It is then judged in a
    process of its own, within `config.deadline_seconds`; see `model_core.rewards._apart`. One that judges many sooner together
    has `score_many(samples) -> list[Score]`, and `required` names settings that it cannot do without, with the remedy of each.
    """

    bounds: tuple[float, float]

    def __call__(self, sample: Sample) -> Score: ...
