"""Points of a series as arrays of buckets: folding them together, and which parts of a pyramid hold a range of steps.

A bucket of level k holds the points of 4**k consecutive steps; level 0 is the points. `CHUNK` buckets of a level side by side
are a chunk; a chunk is sealed, and never changes again, when the series has gone beyond it. Nothing here knows the database:
that is `training_app.pyramid`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BUCKET = np.dtype([
    ("step", "<i8"), ("n", "<i4"), ("nonfinite", "<i4"), ("min", "<f8"), ("max", "<f8"), ("last", "<f8"),
    ("time", "<f8"), ("tokens", "<i8"), ("process", "<f8"),
])  # fmt: skip
"""How a bucket is stored. `step`, `last`, `time` (seconds since the epoch), `tokens` and `process` (seconds) are of its newest
point; NaN stands for a value that is none, and for the extremes of a bucket without one. `min` and `max` leave those out."""
CHUNK_BITS, LEVEL_BITS = 6, 2
NUM_LEVELS = 12
SLACK = 1.25
"""A width may be so much larger than asked before a finer level is read for it."""

Buckets = NDArray[np.void]
Window = tuple[int, int, int]
"""Level, first step, step behind the last: a part of a range, whole buckets of its level."""
STAMP = np.dtype([(name, BUCKET[name]) for name in ("step", "time", "tokens", "process")])
"""What an event tells of its points together."""


def points(stamps: NDArray[np.void], values: list[Any]) -> Buckets:
    """Buckets of level 0, in order of steps, out of a `STAMP` and a value each; what is no finite number is counted as such."""
    found: Buckets = np.empty(len(values), BUCKET)
    for name in STAMP.names or ():
        found[name] = stamps[name]
    if not set(map(type, values)) <= {float, int, bool}:
        values = [value if isinstance(value, int | float) else np.nan for value in values]
    given = np.asarray(values, np.float64)
    is_number = np.isfinite(given)
    found["last"] = found["min"] = found["max"] = np.where(is_number, given, np.nan)
    found["n"], found["nonfinite"] = 1, ~is_number
    return found


def fold(buckets: Buckets, width: int) -> Buckets:
    """Joins what lies in the same `width` steps; each bucket given lies within one such stretch."""
    return fold_each(buckets, np.array([len(buckets)]), width)[0]


def fold_each(buckets: Buckets, sizes: NDArray[np.integer[Any]], width: int) -> list[Buckets]:
    """The same of several series that lie one behind the other, the first with `sizes[0]` buckets: each one's by itself."""
    ends = np.cumsum(sizes)
    if width == 1 or not len(buckets):
        return np.split(buckets, ends[:-1])
    places = buckets["step"] // width
    is_first = np.concatenate(([True], places[1:] != places[:-1]))
    is_first[(ends - sizes)[sizes > 0]] = True
    firsts = np.flatnonzero(is_first)
    found: Buckets = buckets[np.append(firsts[1:], len(buckets)) - 1]
    found["n"] = np.add.reduceat(buckets["n"], firsts)
    found["nonfinite"] = np.add.reduceat(buckets["nonfinite"], firsts)
    found["min"] = np.fmin.reduceat(buckets["min"], firsts)
    found["max"] = np.fmax.reduceat(buckets["max"], firsts)
    return np.split(found, np.searchsorted(firsts, ends[:-1]))


def sealed_until(newest: int, level: int) -> int:
    """The step before which a series that has come to `newest` has all chunks of `level`."""
    bits = CHUNK_BITS + LEVEL_BITS * level
    return newest >> bits << bits


def in_chunks(buckets: Buckets, level: int) -> list[tuple[int, Buckets]]:
    """Buckets of `level` by the first step of their chunk."""
    if not len(buckets):
        return []
    bits = CHUNK_BITS + LEVEL_BITS * level
    numbers = buckets["step"] >> bits
    ends = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
    return [(int(piece["step"][0]) >> bits << bits, piece) for piece in np.split(buckets, ends)]


def windows(first: int, last: int, *, newest: int, level: int) -> list[Window]:
    """Parts that hold the sealed steps from `first` to `last` exactly, none of a level above `level`, in order of steps.

    The middle is of the coarsest level that fits; towards both ends, and towards `newest`, the levels get finer.
    """
    lows = [-(-first >> LEVEL_BITS * j) << LEVEL_BITS * j for j in range(level + 1)]
    highs = [min(last + 1, sealed_until(newest, j)) >> LEVEL_BITS * j << LEVEL_BITS * j for j in range(level + 1)]
    top = max((j for j in range(level + 1) if lows[j] <= highs[j]), default=-1)
    if top < 0:
        return []
    left = [(j, lows[j], lows[j + 1]) for j in range(top)]
    right = [(j, highs[j + 1], highs[j]) for j in reversed(range(top))]
    return [part for part in (*left, (top, lows[top], highs[top]), *right) if part[1] < part[2]]


def width_for(num_steps: int, max_buckets: int) -> int:
    """How many steps a bucket has to hold so that any `num_steps` consecutive ones are at most `max_buckets` buckets.

    A multiple of a level's width, of the coarsest level that does not make it much wider than needed.
    """
    wanted = -(-num_steps // max(max_buckets - 1, 1))
    level = min((wanted.bit_length() - 1) // LEVEL_BITS, NUM_LEVELS - 1)
    size = 1 << LEVEL_BITS * level
    if level and -(-wanted // size) * size > SLACK * wanted:
        size >>= LEVEL_BITS
    return -(-wanted // size) * size


def level_of(width: int) -> int:
    """The coarsest level whose buckets make up `width` steps."""
    level = 0
    while level + 1 < NUM_LEVELS and width % (1 << LEVEL_BITS * (level + 1)) == 0:
        level += 1
    return level


def numbers(column: NDArray[Any]) -> list[Any]:
    """A column as JSON has it: None for what is no number."""
    if column.dtype.kind != "f":
        return list(column.tolist())
    gone = np.isnan(column)
    if not gone.any():
        return list(column.tolist())
    found = column.astype(object)
    found[gone] = None
    return list(found.tolist())
