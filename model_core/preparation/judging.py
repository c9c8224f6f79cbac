"""Maps and filters chunks of rows; needs nothing that came before, so that it can be done in any process.

A filter that remembers rows is asked in two halves: what is remembered of a row (`sketch`) is made here, and whether that
came before is decided by `funnel`, in the order of the rows. The filters behind it are asked here as if it had kept the row.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model_core.config import PrepareConfig
from model_core.filters import FILTERS
from model_core.filters._judging import Drop
from model_core.preparation.mapping import mapped
from model_core.sources import SOURCES
from model_core.sources._bad import BadRow, refuse

SPLITS = ("train", "held_out")
MAX_SHOWN_CHARS = 300
_to_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


class Raw(NamedTuple):
    """A row as its source gave it; `split` is empty when the prompt decides."""

    number: int
    split: str
    values: dict[str, Any]


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


@dataclass(frozen=True)
class Chunk:
    """The judgements of some rows in their order, those that could not be judged, and what filters noted."""

    judged: list[Judged]
    bad: list[BadRow]
    noted: list[Counter[str]]


class Judge:
    """The mapping and the filters of a preparation, made once in each process."""

    def __init__(self, config: PrepareConfig, benchmarks: Mapping[str, Path]) -> None:
        self._config = config
        self._is_mapped = getattr(SOURCES.get(config.source), "is_mapped", False)
        self.filters = [_made(step.name, step.config, benchmarks) for step in config.filters]
        self._steps = [(number, step, hasattr(step, "compare")) for number, step in enumerate(self.filters)]

    def judge(self, rows: Sequence[Raw]) -> Chunk:
        """Judges rows. Raises DataError at the first that is bad, unless bad rows are to be left out."""
        judged: list[Judged] = []
        bad: list[BadRow] = []
        for raw in rows:
            try:
                is_row = self._is_mapped or bool(raw.split)
                row = raw.values if is_row else mapped(raw.values, self._config.mapping, raw.number)
            except BadRow as error:
                (refuse if self._config.on_bad_row == "refuse" else bad.append)(error)
            else:
                judged.append(self._judged(row, raw.split))
        return Chunk(judged, bad, [self._noted(step) for step in self.filters])

    def _judged(self, row: dict[str, Any], split: str) -> Judged:
        sketches: list[bytes] = []
        rewritten: list[int] = []
        for number, step, remembers in self._steps:
            if remembers:
                sketches.append(step.sketch(row))
                continue
            before = row["prompt"], row["completion"]
            drop = step.why_dropped(row)
            if drop is not None:
                return Judged("", b"", (0, None), None, tuple(sketches), number, drop, tuple(rewritten), shown(row))
            if row["prompt"] is not before[0] or row["completion"] is not before[1]:
                rewritten.append(number)
        split = split or split_of(row["prompt"], self._config.held_out_fraction)
        completion, answer = row["completion"], row["answer"]
        sizes = len(row["prompt"]), None if completion is None else len(completion)
        line = f"{_to_json(row)}\n".encode()
        return Judged(split, line, sizes, answer and answer[:60], tuple(sketches), None, None, tuple(rewritten), None)

    @staticmethod
    def _noted(step: Any) -> Counter[str]:
        noted: Counter[str] | None = getattr(step, "noted", None)
        if not noted:
            return Counter()
        found = Counter(noted)
        noted.clear()
        return found


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
