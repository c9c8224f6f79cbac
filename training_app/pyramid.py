"""The min/max/last/count pyramid of each series in the database: adding points, taking them back, reading any range.

A series row carries the points of the chunk that is still open; all other buckets lie in rows of sealed chunks
(`training_app.buckets`), written once by COPY. So a step of a live run costs one update a series, and a long file few rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from django.db import connection, transaction

from training_app.buckets import (
    BUCKET,
    CHUNK_BITS,
    LEVEL_BITS,
    NUM_LEVELS,
    Buckets,
    fold,
    fold_each,
    in_chunks,
    level_of,
    sealed_until,
    windows,
)
from training_app.models import MetricChunk, MetricSeries

_SERIES, _CHUNKS = MetricSeries._meta.db_table, MetricChunk._meta.db_table
Wanted = tuple[int, int, int, int]
"""Series and window."""
Found = dict[Wanted, bytes]
"""The chunks that a window touches, one behind the other."""


def write(written: Sequence[tuple[MetricSeries, Buckets]]) -> None:
    """Adds points, in order and behind the newest, to each series and stores both. Call it in a transaction."""
    earlier = _chunks([wanted for series, new in written for wanted in _unfolded(series, int(new["step"][-1]))])
    rows = [row for series, new in written for row in _sealed(series, new, earlier)]
    if rows:
        with connection.cursor() as cursor, cursor.copy(_COPY_IN) as copy:
            copy.set_types(["int8", "int2", "int8", "bytea"])
            for row in rows:
                copy.write_row(row)
    _store([series for series, _new in written])


def cut(series: MetricSeries, step: int) -> None:
    """Takes every point at or after `step` out of a series and stores it. Call it in a transaction."""
    kept = _tail(series)
    kept = kept[kept["step"] < step]
    with connection.cursor() as cursor:
        if not len(kept):
            cursor.execute(_LAST_CHUNKS, [series.pk, step])
            found = b"".join(bytes(data) for (data,) in reversed(cursor.fetchall()))
            kept = np.frombuffer(found, BUCKET)
            kept = kept[kept["step"] < step]
            newest = int(kept["step"][-1]) if len(kept) else None
            cursor.execute(_CUT, [series.pk, newest, newest])
            kept = kept[kept["step"] >= sealed_until(newest, 0)] if newest is not None else kept
        cursor.execute(_COUNT, [BUCKET.itemsize, series.pk])
        series.num_points = int(cursor.fetchone()[0]) + len(kept)
    _end(series, kept)
    _store([series])


def read(many: Sequence[MetricSeries], *, first: int, last: int, width: int) -> dict[int, Buckets]:
    """What each series did from step `first` to `last` and nothing beside it, by series id, in buckets of `width` steps."""
    if not many:
        return {}
    level = level_of(width)
    parts = [windows(first, last, newest=one.last_step, level=level) if one.num_points else [] for one in many]
    found = _chunks([(one.pk, *part) for one, of_one in zip(many, parts, strict=True) for part in of_one])
    pieces: list[tuple[int, bytes, int, int]] = []
    for number, (one, of_one) in enumerate(zip(many, parts, strict=True)):
        pieces += [(number, found[one.pk, *part], part[1], part[2]) for part in of_one]
        pieces.append((number, bytes(one.tail), first, last + 1))
    return dict(zip((one.pk for one in many), _folded(pieces, len(many), width), strict=True))


def _folded(pieces: list[tuple[int, bytes, int, int]], num_series: int, width: int) -> list[Buckets]:
    """Of each series what its pieces hold from their first step to before their last. All at once: they are many and short."""
    numbers, data, begins, ends = zip(*pieces, strict=True)
    sizes = [len(one) // BUCKET.itemsize for one in data]
    every = np.frombuffer(b"".join(data), BUCKET)
    steps = every["step"]
    is_kept = (steps >= np.repeat(begins, sizes)) & (steps < np.repeat(ends, sizes))
    owners = np.repeat(numbers, sizes)[is_kept]
    return fold_each(every[is_kept], np.bincount(owners, minlength=num_series), width)


@contextmanager
def snapshot() -> Iterator[None]:
    """Every reading inside is of one moment. Within a transaction it is that transaction's business."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _unfolded(series: MetricSeries, newest: int) -> Iterator[Wanted]:
    """Stored chunks that become part of coarser ones when the series goes on to `newest`."""
    if not series.num_points:
        return
    for level in range(1, NUM_LEVELS):
        begin, end = sealed_until(series.last_step, level), sealed_until(series.last_step, level - 1)
        if sealed_until(newest, level) <= begin:
            return
        if begin < end:
            yield series.pk, level - 1, begin, end


def _sealed(series: MetricSeries, new: Buckets, earlier: Found) -> Iterator[tuple[int, int, int, bytes]]:
    """The rows of chunks that these points seal; leaves the rest as the tail of `series`."""
    before, newest = (series.last_step if series.num_points else int(new["step"][0])), int(new["step"][-1])
    open_points = np.concatenate((_tail(series), new))
    bound = sealed_until(newest, 0)
    below = open_points[open_points["step"] < bound]
    for start, piece in in_chunks(below, 0):
        yield series.pk, 0, start, piece.tobytes()
    for level in range(1, NUM_LEVELS):
        begin, end = sealed_until(before, level), sealed_until(newest, level)
        if end <= begin:
            break
        stored = earlier.get((series.pk, level - 1, begin, sealed_until(before, level - 1)), b"")
        below = np.concatenate((np.frombuffer(stored, BUCKET), below))
        below = fold(below[below["step"] < end], 1 << LEVEL_BITS * level)
        for start, piece in in_chunks(below, level):
            yield series.pk, level, start, piece.tobytes()
    series.num_points += len(new)
    _end(series, open_points[open_points["step"] >= bound])


def _end(series: MetricSeries, tail: Buckets) -> None:
    """Lets a series end with `tail`."""
    series.tail = tail.tobytes()
    if len(tail):
        series.last_step = int(tail["step"][-1])
        value = float(tail["last"][-1])
        series.last_value = value if value == value else None
    else:
        series.last_value = None


def _tail(series: MetricSeries) -> Buckets:
    return np.frombuffer(bytes(series.tail), BUCKET)


def _chunks(wanted: Sequence[Wanted]) -> Found:
    """By window; a row each, whatever it holds: to take many small rows apart costs more than to read them."""
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        asked = cursor.mogrify(_COPY_OUT, [list(column) for column in zip(*wanted, strict=True)])
        with cursor.copy(asked) as copy:
            copy.set_types(["int8", "bytea"])
            return {wanted[number - 1]: data or b"" for number, data in copy.rows()}


def _store(many: Sequence[MetricSeries]) -> None:
    values: list[list[Any]] = [
        [one.pk for one in many], [one.num_points for one in many], [one.last_step for one in many],
        [one.last_value for one in many], [bytes(one.tail) for one in many],
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_STORE, values)


# Below are names of our own tables and columns, and no value.
_COPY_IN = f"COPY {_CHUNKS} (series_id, level, start_step, data) FROM STDIN (FORMAT BINARY)"
_COPY_OUT = f"""
COPY (
    SELECT w.number, c.data
    FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[], %s::bigint[])
         WITH ORDINALITY AS w (series, level, begin_step, end_step, number)
    CROSS JOIN LATERAL (
        SELECT string_agg(data, '' ORDER BY start_step) AS data FROM {_CHUNKS}
        WHERE series_id = w.series AND level = w.level
          AND start_step > w.begin_step - (1::bigint << ({CHUNK_BITS} + {LEVEL_BITS} * w.level)) AND start_step < w.end_step
    ) AS c
) TO STDOUT (FORMAT BINARY)
"""  # noqa: S608
_LAST_CHUNKS = f"""
SELECT data FROM {_CHUNKS} WHERE series_id = %s AND level = 0 AND start_step < %s ORDER BY start_step DESC LIMIT 2
"""  # noqa: S608
_CUT = f"""
DELETE FROM {_CHUNKS} WHERE series_id = %s AND (%s::bigint IS NULL OR start_step >=
    %s::bigint >> ({CHUNK_BITS} + {LEVEL_BITS} * level) << ({CHUNK_BITS} + {LEVEL_BITS} * level))
"""  # noqa: S608
_COUNT = f"SELECT coalesce(sum(octet_length(data)), 0) / %s FROM {_CHUNKS} WHERE series_id = %s AND level = 0"  # noqa: S608
_STORE = f"""
UPDATE {_SERIES} AS s SET num_points = n.num_points, last_step = n.last_step, last_value = n.last_value, tail = n.tail
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::float8[], %s::bytea[])
     AS n (id, num_points, last_step, last_value, tail)
WHERE s.id = n.id
"""  # noqa: S608
