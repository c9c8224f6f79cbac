"""Counts what each filter kept and dropped, by reason and with examples; asks the filters that remember rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from model_core.filters._judging import Drop
from model_core.preparation.judging import Judged, shown
from model_core.sources._bad import BadRow

NUM_EXAMPLES = 5
"""Examples of a filter or of bad rows; a reason that has none gets one beyond them."""


class Funnel:
    """The filters' counts, in their order."""

    def __init__(self, names: Sequence[str], filters: Sequence[Any]) -> None:
        self._steps = [_Step(name) for name in names]
        self._memories = [(number, step) for number, step in enumerate(filters) if hasattr(step, "compare")]

    def passes(self, judged: Judged) -> bool:
        """Counts the row at each filter up to the one that drops it."""
        by, drop = self._first(judged)
        for number in judged.rewritten_by:
            if by is None or number < by:
                self._steps[number].num_rewritten += 1
        for step in self._steps[:by]:
            step.kept += 1
        if by is None or drop is None:
            return True
        self._steps[by].add(drop, judged)
        return False

    def _first(self, judged: Judged) -> tuple[int | None, Drop | None]:
        for (number, memory), sketch in zip(self._memories, judged.sketches, strict=False):
            drop = memory.compare(sketch)
            if drop is not None:
                return number, drop
        return judged.dropped_by, judged.drop

    def note(self, noted: Sequence[Counter[str]]) -> None:
        """Adds what filters counted of the rows that they kept."""
        for step, found in zip(self._steps, noted, strict=True):
            step.noted += found

    @property
    def num_dropped(self) -> int:
        """Rows that any filter dropped."""
        return sum(sum(step.reasons.values()) for step in self._steps)

    def told(self) -> list[dict[str, Any]]:
        """For the manifest."""
        return [step.told() for step in self._steps]


class _Step:
    def __init__(self, name: str) -> None:
        self.name, self.kept, self.num_rewritten = name, 0, 0
        self.reasons: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []

    def add(self, drop: Drop, judged: Judged) -> None:
        if _is_wanted(self._examples, self.reasons, drop.reason):
            row = judged.shown or shown(json.loads(judged.line))
            self._examples.append({"row": row, "why": drop.detail, "reason": drop.reason})
        self.reasons[drop.reason] += 1

    def told(self) -> dict[str, Any]:
        return {
            "filter": self.name, "kept": self.kept, "dropped": sum(self.reasons.values()),
            "reasons": dict(self.reasons.most_common()), "rewritten": self.num_rewritten,
            "noted": dict(self.noted.most_common()), "examples": self._examples,
        }  # fmt: skip


class BadRows:
    """Counts the rows that could not be used."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._examples: list[dict[str, str]] = []

    def add(self, bad: BadRow) -> None:
        """Counts one."""
        if _is_wanted(self._examples, self.reasons, bad.reason):
            self._examples.append({"why": bad.message, "excerpt": bad.excerpt, "reason": bad.reason})
        self.reasons[bad.reason] += 1

    def told(self, further: BadRows) -> dict[str, Any]:
        """For the manifest, those of `further` behind its own."""
        reasons = self.reasons + further.reasons
        examples = [*self._examples, *further._examples]
        return {"num": sum(reasons.values()), "reasons": dict(reasons.most_common()), "examples": examples}


def _is_wanted(examples: Sequence[object], reasons: Counter[str], reason: str) -> bool:
    return len(examples) < NUM_EXAMPLES or not reasons[reason]
