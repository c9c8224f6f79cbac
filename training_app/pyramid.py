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
    Window,
    fold,
    in_chunks,
    sealed_until,
    windows,
)
from training_app.models import MetricChunk, MetricSeries

_SERIES, _CHUNKS = MetricSeries._meta.db_table, MetricChunk._meta.db_table
Wanted = tuple[int, int, int, int]
"""Series and window."""
Found = dict[Wanted, list[tuple[int, Buckets]]]
"""Chunks with their first step, in order."""


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


def read(many: Sequence[MetricSeries], *, first: int, last: int, level: int) -> dict[int, Buckets]:
    """What each series did from step `first` to `last` and nothing beside it, by series id: buckets of `level` or finer."""
    parts = {one.pk: windows(first, last, newest=one.last_step, level=level) if one.num_points else [] for one in many}
    found = _chunks([(pk, *part) for pk, of_one in parts.items() for part in of_one])
    answer = {}
    for one in many:
        pieces = [
            _within(chunk, start, part) for part in parts[one.pk] for start, chunk in found.get((one.pk, *part), [])
        ]
        tail = _tail(one)
        pieces.append(tail[(tail["step"] >= first) & (tail["step"] <= last)])
        answer[one.pk] = np.concatenate(pieces)
    return answer


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
        stored = earlier.get((series.pk, level - 1, begin, sealed_until(before, level - 1)), [])
        below = np.concatenate([*(chunk for _start, chunk in stored), below])
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


def _within(chunk: Buckets, start: int, part: Window) -> Buckets:
    level, begin, end = part
    if start >= begin and start + (1 << CHUNK_BITS + LEVEL_BITS * level) <= end:
        return chunk
    return chunk[(chunk["step"] >= begin) & (chunk["step"] < end)]


def _chunks(wanted: Sequence[Wanted]) -> Found:
    """The chunks that each window touches."""
    found: Found = {}
    if not wanted:
        return found
    with connection.cursor() as cursor:
        asked = cursor.mogrify(_COPY_OUT, [list(column) for column in zip(*wanted, strict=True)])
        with cursor.copy(asked) as copy:
            copy.set_types(["int8", "int8", "bytea"])
            for number, start, data in copy.rows():
                found.setdefault(wanted[number - 1], []).append((start, np.frombuffer(data, BUCKET)))
    for chunks in found.values():
        chunks.sort(key=lambda chunk: chunk[0])
    return found


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
    SELECT w.number, c.start_step, c.data
    FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[], %s::bigint[])
         WITH ORDINALITY AS w (series, level, begin_step, end_step, number)
    CROSS JOIN LATERAL (
        SELECT start_step, data FROM {_CHUNKS}
        WHERE series_id = w.series AND level = w.level
          AND start_step > w.begin_step - (1::bigint << ({CHUNK_BITS} + {LEVEL_BITS} * w.level)) AND start_step < w.end_step
        OFFSET 0
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
