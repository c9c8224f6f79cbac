"""What the components of the reward said of stored rollouts, as numbers: a step's file is parsed once and kept while there is room.

Numbers of all rollouts are a few megabytes where their texts are gigabytes; with them other weights are answered at once.
`reweighed` is the fast twin of `model_core.rescoring.reweigh`, whose sums it equals.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_core.rescoring import is_flat

MAX_BYTES = 64 << 20
"""Of the numbers that are kept, over all runs."""
Column = NDArray[np.float64]
Totals = list[float | None]


@dataclass(frozen=True)
class StepScores:
    """The numbers of one step's rollouts, in the order of the file; not a number where nothing was said.

    *Shapes*: `bounds` [groups + 1]: group g is rows bounds[g] to bounds[g + 1]; each column [rollouts]. A component that is no
    column did not score this step.
    """

    bounds: tuple[int, ...]
    before: Column
    length: Column
    correct: Column
    components: Mapping[str, Column]
    asked: Mapping[str, NDArray[np.bool_]]
    """Whether the component was asked of the rollout, though it may have said nothing."""

    @property
    def num_bytes(self) -> int:
        """Of its columns."""
        return (3 + len(self.components)) * self.before.nbytes + len(self.asked) * len(self.before) + 8 * len(self.bounds)

    def groups(self, totals: Sequence[float | None]) -> list[Totals]:
        """The totals by group."""
        return [list(totals[start:end]) for start, end in pairwise(self.bounds)]


def scores_of(groups: Iterable[Mapping[str, Any]]) -> StepScores:
    """The numbers of stored groups."""
    rollouts: list[Mapping[str, Any]] = []
    bounds = [0]
    for group in groups:
        rollouts += group["completions"]
        bounds.append(len(rollouts))
    said: list[Mapping[str, Any]] = [one.get("components") or {} for one in rollouts]
    names = dict.fromkeys(name for one in said for name in one)
    return StepScores(
        bounds=tuple(bounds), before=_column(one.get("reward") for one in rollouts),
        length=_column(one.get("num_tokens") for one in rollouts), correct=_column(one.get("correct") for one in rollouts),
        components={name: _column(one.get(name) for one in said) for name in names},
        asked={name: np.array([name in one for one in said], dtype=bool) for name in names},
    )  # fmt: skip


def _column(values: Iterable[Any]) -> Column:
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=np.float64)


def reweighed(scores: StepScores, weights: Mapping[str, float]) -> tuple[dict[str, Any], list[Totals], list[Totals]]:
    """What `reweigh` tells of a step, without its texts, and the totals before and after by group."""
    before, after = (_told(column) for column in (scores.before, totals_under(scores, weights)))
    groups_before, groups_after = scores.groups(before), scores.groups(after)
    told = {
        "before": _mean(before), "after": _mean(after), "num_rollouts": len(after), "unscored": after.count(None),
        "num_groups": len(groups_after),
        "flat_before": sum(map(is_flat, groups_before)), "flat_after": sum(map(is_flat, groups_after)),
        "other_best": sum(best_of(was) != best_of(now) for was, now in zip(groups_before, groups_after, strict=True)),
    }  # fmt: skip
    return told, groups_before, groups_after


class Change(NamedTuple):
    """A group in which another completion would be the best, with the totals of both."""

    group: int
    was: int
    now: int
    was_told: dict[str, float | None]
    now_told: dict[str, float | None]


def changes_of(before: Sequence[Totals], after: Sequence[Totals]) -> list[Change]:
    """Those groups, the widest gap first."""
    found = []
    for group, (old, new) in enumerate(zip(before, after, strict=True)):
        was, now = best_of(old), best_of(new)
        if was is not None and now is not None and was != now:
            told = [{"before": old[place], "after": new[place]} for place in (was, now)]
            found.append(Change(group, was, now, told[0], told[1]))
    return sorted(found, key=lambda one: (one.was_told["after"] or 0) - (one.now_told["after"] or 0))


def totals_under(scores: StepScores, weights: Mapping[str, float]) -> Column:
    """The weighted sums; not a number where a component that counts said nothing, or none of them was asked."""
    total = np.zeros(len(scores.before))
    num_asked, was_asked = np.zeros(len(total), dtype=int), np.zeros(len(total), dtype=bool)
    for asked in scores.asked.values():
        was_asked |= asked
    for name, weight in weights.items():
        if weight and name in scores.asked:
            asked = scores.asked[name]
            total += np.where(asked, weight * scores.components[name], 0.0)
            num_asked += asked
    total[(num_asked == 0) & ~was_asked] = np.nan
    return total


def best_of(totals: Totals) -> int | None:
    """The place of the highest, the first of several; None where nothing is scored."""
    found = [(value, -place) for place, value in enumerate(totals) if value is not None]
    return -max(found)[1] if found else None


def _told(column: Column) -> Totals:
    return [None if value != value else value for value in column.tolist()]


def _mean(values: Totals) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def columns_of(steps: Sequence[StepScores]) -> dict[str, Column]:
    """Every component over all steps, sorted, then `correct` and `length`; those that never said anything are left out."""
    names = sorted({name for step in steps for name in step.components})
    empty = [np.full(len(step.before), np.nan) for step in steps]
    found = {name: [step.components.get(name, hole) for step, hole in zip(steps, empty, strict=True)] for name in names}
    found |= {"correct": [step.correct for step in steps], "length": [step.length for step in steps]}
    columns = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


def correlation(a: Column, b: Column) -> float | None:
    """Pearson's, over the rollouts that have both; None where there is none, or one of them never changes."""
    both = ~(np.isnan(a) | np.isnan(b))
    x, y = a[both], b[both]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    return round(float(x @ y / np.sqrt((x @ x) * (y @ y))), 4)


class Kept:
    """Scores by the file that they were read from, at most so many bytes; those that were not asked for longest go first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._found: OrderedDict[Hashable, StepScores] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, read: Callable[[], StepScores]) -> StepScores:
        """Those of the key, read when they are not there."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        scores = read()
        with self._lock:
            if key not in self._found:
                self._found[key] = scores
                self.num_bytes += scores.num_bytes
            while self.num_bytes > self.max_bytes:
                self.num_bytes -= self._found.popitem(last=False)[1].num_bytes
        return scores


KEPT = Kept()
