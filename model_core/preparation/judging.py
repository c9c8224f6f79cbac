"""Reads, maps and filters rows many at once; needs nothing that came before, so that it can be done in any process.

A filter that remembers rows is asked in two halves: what is remembered of a row (`sketch`) is made here, and whether that
came before is decided by `funnel`, in the order of the rows. The filters behind it are asked here as if it had kept the row.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from model_core.config import PrepareConfig
from model_core.filters import FILTERS
from model_core.filters._judging import Drop
from model_core.preparation.line import line_of
from model_core.preparation.mapping import mapped
from model_core.preparation.pairs import PAIR, TEXTS, why_dropped, with_both
from model_core.sources import SOURCES
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._lines import Block

SPLITS = ("train", "held_out")
MAX_SHOWN_CHARS = 300


class Raw(NamedTuple):
    """A row as its source gave it; `split` is empty when the prompt decides."""

    number: int
    split: str
    values: dict[str, Any]


Piece = list[Raw] | Block
"""What is judged at once; a block of lines when the source has `blocks`."""


class Judged(NamedTuple):
    """What is to be known of a row outside: where it was dropped, or the line to write."""

    split: str
    line: bytes
    num_chars: tuple[int, int | None]
    """Of the prompt and of the completion."""
    answer: str | None
    sketches: tuple[bytes, ...]
    """Of each filter that remembers rows, up to the one that dropped this one."""
    dropped_by: int | None
    drop: Drop | None
    rewritten_by: tuple[int, ...]
    shown: dict[str, str] | None
    pair_chars: tuple[int, int] | None = None
    """Of the chosen and of the rejected answer, where the row has them."""


@dataclass(frozen=True)
class Chunk:
    """The judgements of some rows in their order, those that could not be read or mapped, and what filters noted."""

    judged: list[Judged]
    unread: list[BadRow]
    unmapped: list[BadRow]
    noted: list[Counter[str]]

    @property
    def num_read(self) -> int:
        """Rows that the source gave."""
        return len(self.judged) + len(self.unmapped)


class _Row:
    """A row on its way through the filters."""

    __slots__ = ("drop", "dropped_by", "rewritten_by", "sketches", "split", "values")

    def __init__(self, values: dict[str, Any], split: str) -> None:
        self.values, self.split = values, split
        self.sketches: list[bytes] = []
        self.rewritten_by: list[int] = []
        self.dropped_by: int | None = None
        self.drop: Drop | None = None


class Judge:
    """The mapping and the filters of a preparation, made once in each process."""

    def __init__(self, config: PrepareConfig, benchmarks: Mapping[str, Path]) -> None:
        self._config = config
        source = SOURCES.get(config.source)
        self._is_mapped = getattr(source, "is_mapped", False)
        self._block_rows = getattr(source, "block_rows", None)
        self.filters = [_made(step.name, step.config, benchmarks) for step in config.filters]

    def judge(self, piece: Piece) -> Chunk:
        """Judges rows. Raises DataError at the first that is bad, unless bad rows are to be left out."""
        unread: list[BadRow] = []
        unmapped: list[BadRow] = []
        rows = list(self._mapped(self._read(piece, unread), unmapped))
        passing = rows
        for number, step in enumerate(self.filters):
            passing = _passed(passing, number, step)
        return Chunk([self._judged(row) for row in rows], unread, unmapped, [self._noted(step) for step in self.filters])

    def _read(self, piece: Piece, unread: list[BadRow]) -> Iterable[Raw]:
        if self._block_rows is None:
            return cast("list[Raw]", piece)
        found: Iterator[tuple[int, dict[str, Any]]] = self._block_rows(piece, self._on_bad(unread))
        return (Raw(number, "", values) for number, values in found)

    def _mapped(self, raws: Iterable[Raw], unmapped: list[BadRow]) -> Iterator[_Row]:
        on_bad = self._on_bad(unmapped)
        for raw in raws:
            try:
                is_row = self._is_mapped or bool(raw.split)
                row = raw.values if is_row else mapped(raw.values, self._config.mapping, raw.number)
            except BadRow as error:
                on_bad(error)
            else:
                yield _Row(row, raw.split)

    def _on_bad(self, kept: list[BadRow]) -> OnBad:
        return refuse if self._config.on_bad_row == "refuse" else kept.append

    def _judged(self, row: _Row) -> Judged:
        values, sketches, rewritten = row.values, tuple(row.sketches), tuple(row.rewritten_by)
        if row.drop is not None:
            return Judged("", b"", (0, None), None, sketches, row.dropped_by, row.drop, rewritten, shown(values))
        prompt, completion, answer = values["prompt"], values["completion"], values["answer"]
        split = row.split or split_of(prompt, self._config.held_out_fraction)
        sizes = len(prompt), None if completion is None else len(completion)
        pair = (len(values[PAIR[0]]), len(values[PAIR[1]])) if PAIR[0] in values else None
        return Judged(split, line_of(values), sizes, answer and answer[:60], sketches, None, None, rewritten, None, pair)

    @staticmethod
    def _noted(step: Any) -> Counter[str]:
        noted: Counter[str] | None = getattr(step, "noted", None)
        if not noted:
            return Counter()
        found = Counter(noted)
        noted.clear()
        return found


def _passed(rows: list[_Row], number: int, step: Any) -> list[_Row]:
    """Asks a filter for the rows that came to it: those that it keeps."""
    if hasattr(step, "compare"):
        for row in rows:
            row.sketches.append(step.sketch(with_both(row.values)))
        return rows
    before = [[row.values.get(name) for name in TEXTS] for row in rows]
    for row, texts, drop in zip(rows, before, _drops(step, [row.values for row in rows]), strict=True):
        if drop is not None:
            row.dropped_by, row.drop = number, drop
        elif [row.values.get(name) for name in TEXTS] != texts:
            row.rewritten_by.append(number)
    return [row for row in rows if row.drop is None]


def _drops(step: Any, rows: list[dict[str, Any]]) -> Iterable[Drop | None]:
    """What the filter says of each row."""
    if hasattr(step, "why_dropped_each") and not any("chosen" in row for row in rows):
        found: Iterable[Drop | None] = step.why_dropped_each(rows)
        return found
    return (why_dropped(step, row) for row in rows)


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """The part of a row that an example shows."""
    return {key: str(row[key])[:MAX_SHOWN_CHARS] for key in ("prompt", "answer")}


def split_of(prompt: str, held_out_fraction: float) -> str:
    """Which split a prompt belongs to: a fixed function of its text, so that no prompt can be in both."""
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    return "held_out" if place < held_out_fraction else "train"


def _made(name: str, config: dict[str, Any], benchmarks: Mapping[str, Path]) -> Any:
    cls = FILTERS.get(name)
    parsed = cls.Config.parse(config)
    return cls(parsed, benchmarks) if getattr(cls, "needs_benchmarks", False) else cls(parsed)
