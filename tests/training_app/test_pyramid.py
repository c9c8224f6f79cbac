"""The pyramid holds at every level what a pass over the points gives, whatever order they came in."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from r1platform.models import Project
from tests.training_app.rows import make_run
from training_app import pyramid
from training_app.models import MetricBucket, MetricSeries

pytestmark = pytest.mark.django_db


@pytest.fixture
def series(project: Project, alice: User) -> MetricSeries:
    return MetricSeries.objects.create(run=make_run(project, alice), name="loss")


def points(steps: range, seed: int = 0) -> list[pyramid.Bucket]:
    values = random.Random(seed)
    return [
        pyramid.point(
            step, None if step % 7 == 3 else values.gauss(0, 1), time=1e9 + step, tokens=step * 3, process_seconds=step / 4
        )
        for step in steps
    ]


def expected(given: list[pyramid.Bucket], level: int) -> dict[int, tuple[Any, ...]]:
    """By brute force: (count, nonfinite, min, max, last step, last value) of each bucket."""
    size = 4**level
    grouped: dict[int, list[pyramid.Bucket]] = {}
    for one in given:
        grouped.setdefault(one.start_step // size * size, []).append(one)
    found = {}
    for start, members in grouped.items():
        finite = [m.last_value for m in members if m.last_value is not None]
        ends = (min(finite), max(finite)) if finite else (None, None)
        found[start] = (len(members), len(members) - len(finite), *ends, members[-1].last_step, members[-1].last_value)
    return found


def stored(series: MetricSeries, level: int) -> dict[int, tuple[Any, ...]]:
    names = ("start_step", "num_points", "num_nonfinite", "minimum", "maximum", "last_step", "last_value")
    rows = MetricBucket.objects.filter(series=series, level=level).values_list(*names)
    return {row[0]: tuple(row[1:]) for row in rows}


@pytest.mark.parametrize("size", [1, 3, 50, 400])
def test_any_batching_gives_the_same_pyramid(series: MetricSeries, size: int) -> None:
    given = points(range(1, 300))
    for start in range(0, len(given), size):
        with transaction.atomic():
            pyramid.write({series.pk: given[start : start + size]})
    for level in range(pyramid.NUM_LEVELS):
        assert stored(series, level) == expected(given, level)


@pytest.mark.parametrize("step", [1, 16, 17, 100, 255])
def test_a_resumed_attempt_replaces_what_followed(series: MetricSeries, step: int) -> None:
    first, again = points(range(1, 256)), points(range(step, 300), seed=1)
    with transaction.atomic():
        pyramid.write({series.pk: first})
        pyramid.cut(series.pk, step)
        pyramid.write({series.pk: again})
    truth = [one for one in first if one.start_step < step] + again
    for level in range(pyramid.NUM_LEVELS):
        assert stored(series, level) == expected(truth, level)


@pytest.mark.parametrize("num_steps", [1, 999, 1000, 1001, 4000, 123_456, 10**7])
def test_a_range_is_at_most_the_buckets_asked_for(num_steps: int) -> None:
    level = pyramid.level_for(num_steps, 1000)
    assert -(-num_steps // 4**level) + 1 <= 1000 or level == pyramid.NUM_LEVELS - 1
    assert level == 0 or -(-num_steps // 4 ** (level - 1)) + 1 > 1000
