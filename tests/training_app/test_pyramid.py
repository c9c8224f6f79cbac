"""Whatever range is read, at whatever width and whatever order points came in: it is what a pass over the points gives."""

from __future__ import annotations

import gzip
import random
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from r1platform.models import Project
from tests.training_app.rows import make_run, put_series
from training_app import buckets, pyramid
from training_app.models import MetricChunk, MetricSeries, PhaseRun
from training_app.selectors import run_metrics, runs_metrics

pytestmark = pytest.mark.django_db
Truth = dict[int, float]


@pytest.fixture
def run(project: Project, alice: User) -> PhaseRun:
    return make_run(project, alice)


@pytest.fixture
def series(run: PhaseRun) -> MetricSeries:
    return MetricSeries.objects.create(run=run, name="loss")


def some(steps: Any, seed: int = 0) -> Truth:
    values = random.Random(seed)
    return {step: float("nan") if step % 7 == 3 else values.gauss(0, 1) for step in steps}


def add(series: MetricSeries, given: Truth) -> None:
    with transaction.atomic():
        stamps = [(step, 1e9 + step, step * 3, step / 4) for step in given]
        pyramid.write([(series, buckets.points(np.array(stamps, buckets.STAMP), list(given.values())))])


def expected(truth: Truth, first: int, last: int, width: int) -> list[tuple[Any, ...]]:
    """By brute force: step, points, without a number, min, max, value and time of each bucket."""
    grouped: dict[int, list[int]] = {}
    for step in truth:
        if first <= step <= last:
            grouped.setdefault(step // width, []).append(step)
    found = []
    for steps in grouped.values():
        finite = [truth[step] for step in steps if truth[step] == truth[step]]
        ends = (min(finite), max(finite)) if finite else (None, None)
        value = truth[steps[-1]]
        found.append((steps[-1], len(steps), len(steps) - len(finite), *ends, value if value == value else None, 1e9 + steps[-1]))
    return found


def read(series: MetricSeries, first: int, last: int, width: int) -> list[tuple[Any, ...]]:
    fresh = MetricSeries.objects.get(pk=series.pk)
    found = pyramid.read([fresh], first=first, last=last, width=width)[fresh.pk]
    return list(zip(*(buckets.numbers(found[name]) for name in ("step", "n", "nonfinite", "min", "max", "last", "time")), strict=True))


def holds(series: MetricSeries, truth: Truth, seed: int = 0) -> None:
    """Ranges drawn at random, and all of it, at several widths."""
    draw, newest = random.Random(seed), max(truth)
    ranges = [(0, newest), *(sorted((draw.randrange(newest + 9), draw.randrange(newest + 9))) for _ in range(8))]
    for first, last in ranges:
        for width in (1, 4, 12, 64, 80, 1024):
            assert read(series, first, last, width) == expected(truth, first, last, width), (first, last, width)
    assert MetricSeries.objects.get(pk=series.pk).num_points == len(truth)


@pytest.mark.parametrize("size", [7, 50, 400, 9000])
def test_any_batching_and_any_range_give_what_the_points_give(series: MetricSeries, size: int) -> None:
    truth = some(range(5, 700 if size < 10 else 6000))
    steps = list(truth)
    for start in range(0, len(steps), size):
        add(series, {step: truth[step] for step in steps[start : start + size]})
    holds(series, truth)


def test_steps_far_apart_are_as_good(series: MetricSeries) -> None:
    truth = some(sorted(random.Random(3).sample(range(2_000_000), 300)))
    steps = list(truth)
    for start in range(0, 300, 37):
        add(series, {step: truth[step] for step in steps[start : start + 37]})
    holds(series, truth)


def test_coarse_levels_are_read_and_not_points(series: MetricSeries) -> None:
    parts = buckets.windows(0, 69_999, newest=69_999, level=4)
    assert sum((end - begin) >> buckets.LEVEL_BITS * level for level, begin, end in parts) < 1000
    add(series, some(range(70_000)))
    found = pyramid.read([series], first=0, last=69_999, width=256)[series.pk]
    assert found["n"].sum() == 70_000


@pytest.mark.parametrize("step", [0, 1, 63, 64, 100, 255, 256, 1000, 1279, 1280, 1299])
def test_a_resumed_attempt_replaces_what_followed(series: MetricSeries, step: int) -> None:
    first, again = some(range(1300)), some(range(step, 1500), seed=1)
    add(series, first)
    with transaction.atomic():
        pyramid.cut(series, step)
    assert MetricSeries.objects.get(pk=series.pk).num_points == step
    add(series, again)
    holds(series, {**{at: value for at, value in first.items() if at < step}, **again})


def test_a_cut_in_a_gap_goes_back_to_the_point_before_it(series: MetricSeries) -> None:
    truth = some([3, 40, 5000, 5001, 90_000])
    add(series, truth)
    with transaction.atomic():
        pyramid.cut(series, 4990)
    assert (series.last_step, series.num_points) == (40, 2)
    holds(series, some([3, 40]) | {3: truth[3], 40: truth[40]})
    with transaction.atomic():
        pyramid.cut(series, 0)
    assert not MetricChunk.objects.exists() and MetricSeries.objects.get().num_points == 0 and read(series, 0, 9, 1) == []


@pytest.mark.parametrize("num_steps", [1, 2, 999, 1000, 1001, 4000, 123_456, 10**6, 10**7])
@pytest.mark.parametrize("most", [2, 200, 1000])
def test_a_range_is_at_most_the_buckets_asked_for_and_not_far_fewer(num_steps: int, most: int) -> None:
    width = buckets.width_for(num_steps, most)
    assert (num_steps - 1) // width + 2 <= max(most, 2) or width == 1
    assert width == 1 or width <= 2 * -(-num_steps // (most - 1))
    assert width % 4 ** buckets.level_of(width) == 0


def test_many_runs_are_read_in_two_queries_and_few_buckets(project: Project, alice: User) -> None:
    runs = [make_run(project, alice) for _ in range(5)]
    for place, run in enumerate(runs):
        put_series(run, "loss", {step: float(np.sin(step) * (place + 1)) for step in range(3000)})
    with CaptureQueriesContext(connection) as queries:
        found = runs_metrics(runs, names=["loss"], max_buckets=100, columns=["x", "min", "max"])
    assert len(queries) == 2
    assert [one["run"] for one in found["runs"]] == [run.pk for run in runs]
    for place, one in enumerate(found["runs"]):
        (column,) = one["series"]
        truth = [float(np.sin(step) * (place + 1)) for step in range(3000)]
        assert set(column) == {"name", "unit", "x", "min", "max"} and len(column["x"]) <= 100
        assert (min(column["min"]), max(column["max"])) == (min(truth), max(truth))


def test_an_answer_of_many_series_is_bounded_in_all(run: PhaseRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training_app.selectors.metrics.MAX_BUCKETS_IN_ALL", 60)
    for name in "abc":
        put_series(run, name, dict.fromkeys(range(500), 1.0))
    found = run_metrics(run)
    assert all(len(one["x"]) <= 20 and sum(one["n"]) == 500 for one in found["series"])


def test_a_long_answer_is_gzipped_where_that_is_taken_and_the_same(run: PhaseRun, api_alice: APIClient) -> None:
    put_series(run, "loss", {step: None if step == 5 else step / 3 for step in range(800)})
    address = f"/api/v1/runs/{run.pk}/metrics/"
    plain, packed = api_alice.get(address), api_alice.get(address, headers={"Accept-Encoding": "gzip"})
    short = api_alice.get(address, {"to": 3}, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip" and "Accept-Encoding" in plain.headers["Vary"]
    assert gzip.decompress(packed.content) == plain.content and len(packed.content) < len(plain.content) / 2
    (series,) = plain.json()["series"]
    assert series["last"] == [None if step == 5 else step / 3 for step in range(800)] and series["min"][5] is None
    assert not short.has_header("Content-Encoding") and short.json()["series"][0]["x"] == [0, 1, 2, 3]


def test_what_holds_points_is_never_packed_by_the_database() -> None:
    """Floats hardly compress, and a chart reads many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, attstorage FROM pg_attribute WHERE (attrelid, attname) IN "
            "(('training_app_metricchunk'::regclass, 'data'), ('training_app_metricseries'::regclass, 'tail')) ORDER BY attname"
        )
        assert cursor.fetchall() == [("data", "e"), ("tail", "e")]
