"""One conversation as a line of turns: the tree of messages, the branch that is shown, what stands beside each turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.utils.safestring import SafeString, mark_safe

from serving_app.models import Judgement, JudgementKind, Message
from serving_app.reasons import BAD, GOOD
from serving_app.rendering import render
from serving_app.states import GENERATION_MOVES, GenerationState

FINAL = frozenset(state for state in GenerationState if state not in GENERATION_MOVES)
Judged = Mapping[int, Mapping[str, Judgement]]
"""What the reader said of answers: by message, then by kind."""


@dataclass(frozen=True)
class Turn:
    """A message in the shown branch; `siblings` are the ids of all messages at this place, oldest first.

    Of answers that are compared the one on the branch has all `columns`, itself among them.
    """

    message: Message
    siblings: tuple[int, ...]
    own: Mapping[str, Judgement] = field(default_factory=dict)
    columns: tuple[Turn, ...] = ()
    is_shown: bool = True
    """Whether the branch goes through it; of a comparison one column is."""

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
        said = "".join(f".{one.pk}{one.state}" for one in self.own.values())
        return f"{self.message.state}.{self.message.seq}.{len(self.siblings)}.{self.is_shown:d}{said}"

    @property
    def rating(self) -> Judgement | None:
        """What the reader rated it."""
        return self.own.get(JudgementKind.RATING)

    @property
    def reasons(self) -> list[tuple[str, str, bool]]:
        """Name, words and whether it was chosen, of each reason that fits the rating."""
        if self.rating is None:
            return []
        known = GOOD if self.rating.value > 0 else BAD
        return [(name, words, name in self.rating.reasons) for name, words in known.items()]

    @property
    def is_judgeable(self) -> bool:
        """Whether it is an answer of a model that has ended with something to judge."""
        return self.message.role == "assistant" and self.is_final and self.is_written and self.message.edit_of_id is None

    @property
    def is_preferred(self) -> bool:
        """Whether the reader chose it in this comparison."""
        said = self.own.get(JudgementKind.CHOICE)
        return said is not None and said.value > 0

    @property
    def is_decided(self) -> bool:
        """Whether the reader has chosen among the columns, or called them alike."""
        return any(JudgementKind.CHOICE in column.own for column in self.columns)

    @property
    def is_comparable(self) -> bool:
        """Whether every column has ended and two at least have something to choose between."""
        return all(column.is_final for column in self.columns) and len(self.written) > 1

    @property
    def written(self) -> list[Turn]:
        """The columns that have something to choose."""
        return [column for column in self.columns if column.is_written]

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
    def goes_on(self) -> bool:
        """Whether it ended before the model was through, so that it can be continued."""
        ends = {GenerationState.STOPPED, GenerationState.INTERRUPTED, GenerationState.FAILED}
        return self.is_written and not self.is_too_long and (self.was_cut or self.message.state in ends)

    @property
    def is_too_long(self) -> bool:
        """Whether the engine refused the question because of its length."""
        return bool(self.message.usage.get("error_code") == "context_length_exceeded")

    @property
    def thought_seconds(self) -> float | None:
        """Seconds of thinking, where the server measured them."""
        value = self.message.usage.get("reasoning_seconds")
        return float(value) if isinstance(value, int | float) else None


def thread_of(messages: Iterable[Message], *, at: int | None = None, judged: Judged | None = None) -> list[Turn]:
    """The branch that holds message `at` (its newest continuation), else the newest branch."""
    tree = _Tree({message.pk: message for message in messages}, judged or {})
    return tree.branch(at) if tree.by_id else []


def branch_to(messages: Iterable[Message], leaf: int) -> list[Turn]:
    """The branch that ends in the message `leaf`, which is among the messages."""
    return _Tree({message.pk: message for message in messages}, {}).up_from(leaf)


class _Tree:
    """The messages of a conversation by id and by parent."""

    def __init__(self, by_id: dict[int, Message], judged: Judged) -> None:
        self.by_id, self.judged = by_id, judged
        self.children: dict[int | None, list[int]] = {}
        for pk in sorted(by_id):
            self.children.setdefault(by_id[pk].parent_id, []).append(pk)

    def branch(self, at: int | None) -> list[Turn]:
        leaf = at if at in self.by_id else self._best(self.children[self.by_id[max(self.by_id)].parent_id])
        while below := self.children.get(leaf):
            leaf = self._best(below)
        return self.up_from(leaf)

    def up_from(self, leaf: int) -> list[Turn]:
        turns = []
        current: int | None = leaf
        while current is not None:
            turns.append(self._turn(current))
            current = self.by_id[current].parent_id
        return turns[::-1]

    def _best(self, there: list[int]) -> int:
        """Of several answers the newest; of a comparison the one that was gone on from, else chosen, else the first column."""
        newest = there[-1]
        if self.by_id[newest].column is None:
            return newest
        columns = list(self._columns(there).values())
        followed = [ids[-1] for ids in columns if ids[-1] in self.children]
        chosen = [ids[-1] for ids in columns if self._is_chosen(ids[-1])]
        return max(followed) if followed else (chosen or [columns[0][-1]])[0]

    def _columns(self, there: list[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for pk in there:
            column = self.by_id[pk].column
            if column is not None:
                found.setdefault(column, []).append(pk)
        return dict(sorted(found.items()))

    def _is_chosen(self, pk: int) -> bool:
        said = self.judged.get(pk, {}).get(JudgementKind.CHOICE)
        return said is not None and said.value > 0

    def _turn(self, pk: int) -> Turn:
        message = self.by_id[pk]
        there = self.children[message.parent_id]
        columns = self._columns(there)
        own = self.judged.get(pk, {})
        if message.column is None:
            return Turn(message, tuple(sibling for sibling in there if self.by_id[sibling].column is None), own)
        beside = tuple(
            self._column(ids, shown=pk if column == message.column else None) for column, ids in columns.items()
        )
        return Turn(message, tuple(columns[message.column]), own, beside if len(beside) > 1 else ())

    def _column(self, ids: list[int], *, shown: int | None) -> Turn:
        pk = ids[-1] if shown is None else shown
        return Turn(self.by_id[pk], tuple(ids), self.judged.get(pk, {}), is_shown=shown is not None)
