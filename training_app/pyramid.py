"""The min/max/last/count pyramid of a series: folding points into buckets, writing them by COPY, reading a range.

Level k has buckets of 4**k consecutive steps. Points come in order of steps; a point at or before the newest step (a
resumed attempt) replaces what was there from its step on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from training_app.models import MetricBucket

NUM_LEVELS = 10
FACTOR = 4
_COLUMNS = (
    "series_id", "level", "start_step", "num_points", "num_nonfinite", "minimum", "maximum", "last_step", "last_value",
    "last_time", "last_tokens", "last_process_seconds",
)  # fmt: skip
_NAMES = ", ".join(_COLUMNS)
_BUCKETS = MetricBucket._meta.db_table


@dataclass(slots=True)
class Bucket:
    """Points of one series over `FACTOR**level` steps."""

    start_step: int
    num_points: int
    num_nonfinite: int
    minimum: float | None
    maximum: float | None
    last_step: int
    last_value: float | None
    last_time: float
    last_tokens: int
    last_process_seconds: float


def point(step: int, value: float | None, *, time: float, tokens: int, process_seconds: float) -> Bucket:
    """A bucket of level 0; a `value` of None stands for NaN and infinities."""
    return Bucket(step, 1, int(value is None), value, value, step, value, time, tokens, process_seconds)


def fold(buckets: Iterable[Bucket], level: int) -> list[Bucket]:
    """Buckets of `level` from those of the level below, in order of steps."""
    size = FACTOR**level
    found: list[Bucket] = []
    for bucket in buckets:
        start = bucket.start_step // size * size
        if found and found[-1].start_step == start:
            _join(found[-1], bucket)
        else:
            found.append(
                Bucket(start, bucket.num_points, bucket.num_nonfinite, bucket.minimum, bucket.maximum, bucket.last_step,
                       bucket.last_value, bucket.last_time, bucket.last_tokens, bucket.last_process_seconds)
            )  # fmt: skip
    return found


def _join(into: Bucket, later: Bucket) -> None:
    into.num_points += later.num_points
    into.num_nonfinite += later.num_nonfinite
    if later.minimum is not None and (into.minimum is None or later.minimum < into.minimum):
        into.minimum = later.minimum
    if later.maximum is not None and (into.maximum is None or later.maximum > into.maximum):
        into.maximum = later.maximum
    into.last_step, into.last_value, into.last_time = later.last_step, later.last_value, later.last_time
    into.last_tokens, into.last_process_seconds = later.last_tokens, later.last_process_seconds


def write(points: dict[int, list[Bucket]]) -> None:
    """Adds points (level 0, ordered) of several series, by series id, to all levels. Call it in a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS incoming_buckets (LIKE {_BUCKETS}) ON COMMIT DELETE ROWS;"
            "ALTER TABLE incoming_buckets ALTER COLUMN id DROP NOT NULL"
        )
        with cursor.copy(f"COPY incoming_buckets ({_NAMES}) FROM STDIN") as copy:
            for series_id, buckets in points.items():
                for level in range(NUM_LEVELS):
                    buckets = buckets if level == 0 else fold(buckets, level)
                    for b in buckets:
                        copy.write_row(
                            (series_id, level, b.start_step, b.num_points, b.num_nonfinite, b.minimum, b.maximum,
                             b.last_step, b.last_value, b.last_time, b.last_tokens, b.last_process_seconds)
                        )  # fmt: skip
        cursor.execute(_MERGE)
        cursor.execute("DELETE FROM incoming_buckets")


def cut(series_id: int, step: int) -> None:
    """Takes every point at or after `step` out of all levels. Call it in a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(_CUT, [series_id, step])
        for level in range(1, NUM_LEVELS):
            start = step // FACTOR**level * FACTOR**level
            if start < step:
                cursor.execute(_REBUILD, [level, start, series_id, start, step])


# Below are names of our own tables and columns, and no value.
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[7:])
_MERGE = f"""
INSERT INTO {_BUCKETS} ({_NAMES}) SELECT {_NAMES} FROM incoming_buckets
ON CONFLICT (series_id, level, start_step) DO UPDATE SET
    num_points = {_BUCKETS}.num_points + excluded.num_points,
    num_nonfinite = {_BUCKETS}.num_nonfinite + excluded.num_nonfinite,
    minimum = least({_BUCKETS}.minimum, excluded.minimum),
    maximum = greatest({_BUCKETS}.maximum, excluded.maximum), {_UPDATES}
"""  # noqa: S608
_CUT = f"DELETE FROM {_BUCKETS} WHERE series_id = %s AND start_step + power({FACTOR}, level)::bigint > %s"  # noqa: S608
_REBUILD = f"""
INSERT INTO {_BUCKETS} ({_NAMES})
SELECT series_id, %s, %s, sum(num_points), sum(num_nonfinite), min(minimum), max(maximum), max(last_step),
       (array_agg(last_value ORDER BY last_step DESC))[1], (array_agg(last_time ORDER BY last_step DESC))[1],
       (array_agg(last_tokens ORDER BY last_step DESC))[1], (array_agg(last_process_seconds ORDER BY last_step DESC))[1]
FROM {_BUCKETS} WHERE series_id = %s AND level = 0 AND start_step >= %s AND start_step < %s GROUP BY series_id
"""  # noqa: S608


def level_for(num_steps: int, max_buckets: int) -> int:
    """The finest level at which `num_steps` consecutive steps are at most `max_buckets` buckets."""
    level = 0
    while level < NUM_LEVELS - 1 and -(-num_steps // FACTOR**level) + 1 > max_buckets:
        level += 1
    return level


def read(series_ids: Sequence[int], *, level: int, first: int, last: int) -> dict[int, list[tuple[Any, ...]]]:
    """Buckets that touch the steps [first, last], by series: (last_step, last, min, max, n, nonfinite, time, tokens,
    process seconds) in order."""
    rows = (
        MetricBucket.objects.filter(
            series__in=series_ids, level=level, start_step__gt=first - FACTOR**level, start_step__lte=last
        )
        .order_by("series_id", "start_step")
        .values_list("series_id", "last_step", "last_value", "minimum", "maximum", "num_points", "num_nonfinite",
                     "last_time", "last_tokens", "last_process_seconds")
    )  # fmt: skip
    found: dict[int, list[tuple[Any, ...]]] = {pk: [] for pk in series_ids}
    for row in rows.iterator(chunk_size=5000):
        found[row[0]].append(row[1:])
    return found
