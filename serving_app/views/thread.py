"""One conversation as a line of turns: the tree of messages, the branch that is shown, what stands beside each turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.safestring import SafeString, mark_safe

from serving_app.models import Message
from serving_app.rendering import render
from serving_app.states import GENERATION_MOVES, GenerationState

FINAL = frozenset(state for state in GenerationState if state not in GENERATION_MOVES)


@dataclass(frozen=True)
class Turn:
    """A message in the shown branch; `siblings` are the ids of all messages at this place, oldest first."""

    message: Message
    siblings: tuple[int, ...]

    @property
    def position(self) -> int:
        return self.siblings.index(self.message.pk) + 1

    @property
    def previous(self) -> int | None:
        return self.siblings[self.position - 2] if self.position > 1 else None

    @property
    def next(self) -> int | None:
        return self.siblings[self.position] if self.position < len(self.siblings) else None

    @property
    def is_final(self) -> bool:
        return self.message.state in FINAL

    @property
    def html(self) -> SafeString:
        """The content rendered; `rendering.render` ends with the allow-list."""
        return mark_safe(render(self.message.content))  # noqa: S308

    @property
    def version(self) -> str:
        """Changes whenever the element on the page must be replaced."""
        return f"{self.message.state}.{self.message.seq}.{len(self.siblings)}"

    @property
    def first_token(self) -> str:
        """Time to the first token in words, where it was measured."""
        value = self.message.usage.get("ttft_seconds")
        if not isinstance(value, int | float):
            return ""
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"

    @property
    def was_cut(self) -> bool:
        """Whether the length limit ended the answer."""
        return bool(self.message.usage.get("finish_reason") == "length")

    @property
    def is_written(self) -> bool:
        """Whether anything of the answer is there."""
        return bool(self.message.content or self.message.reasoning)

    @property
    def is_too_long(self) -> bool:
        """Whether the engine refused the question because of its length."""
        return bool(self.message.usage.get("error_code") == "context_length_exceeded")

    @property
    def thought_seconds(self) -> float | None:
        """Seconds of thinking, where the server measured them."""
        value = self.message.usage.get("reasoning_seconds")
        return float(value) if isinstance(value, int | float) else None


def thread_of(messages: Iterable[Message], *, at: int | None = None) -> list[Turn]:
    """The branch that holds message `at` (its newest continuation), else the newest branch."""
    by_id = {message.pk: message for message in messages}
    children: dict[int | None, list[int]] = {}
    for message in by_id.values():
        children.setdefault(message.parent_id, []).append(message.pk)
    for ids in children.values():
        ids.sort()
    if not by_id:
        return []
    leaf = _newest_leaf(at, children) if at in by_id else max(by_id)
    turns = []
    current: int | None = leaf
    while current is not None:
        message = by_id[current]
        turns.append(Turn(message, tuple(children[message.parent_id])))
        current = message.parent_id
    return turns[::-1]


def _newest_leaf(start: int | None, children: dict[int | None, list[int]]) -> int:
    assert start is not None
    leaf = start
    while children.get(leaf):
        leaf = children[leaf][-1]
    return leaf
