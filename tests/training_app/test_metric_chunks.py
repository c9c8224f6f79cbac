"""Points that an older database keeps in rows come into the chunks, all of them, with their extremes, and back into rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from r1platform.models import Project
from tests.training_app.rows import make_run
from training_app.models import MetricSeries, PhaseRun
from training_app.selectors import run_metrics

BEFORE, AFTER = ("training_app", "0007_alert_done"), ("training_app", "0008_metric_chunks")
ROW = ("num_points", "num_nonfinite", "minimum", "maximum", "last_step", "last_value", "last_tokens")


def rows_of_level(bucket: Any, level: int) -> list[tuple[Any, ...]]:
    return list(bucket.objects.filter(level=level).order_by("start_step").values_list("start_step", *ROW))


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_points_in_rows_become_chunks_and_rows_again(project: Project, alice: User) -> None:
    run = make_run(project, alice)
    MigrationExecutor(connection).migrate([BEFORE])
    try:
        old = MigrationExecutor(connection).loader.project_state([BEFORE]).apps
        series = old.get_model("training_app", "MetricSeries").objects.create(
            run_id=run.pk, name="loss", num_points=301, first_step=0, last_step=300, last_value=300.0
        )
        values = [None if step == 7 else -99.0 if step == 130 else float(step) for step in range(301)]
        bucket = old.get_model("training_app", "MetricBucket")
        bucket.objects.bulk_create(
            bucket(
                series=series, level=0, start_step=step, num_points=1, num_nonfinite=int(value is None), minimum=value, maximum=value,
                last_step=step, last_value=value, last_time=1e9 + step, last_tokens=step * 3, last_process_seconds=step / 4,
            )
            for step, value in enumerate(values)
        )  # fmt: skip
        points = rows_of_level(bucket, 0)
        MigrationExecutor(connection).migrate([AFTER])
        MigrationExecutor(connection).migrate([BEFORE])
        assert rows_of_level(bucket, 0) == points
        assert rows_of_level(bucket, 1)[1] == (4, 4, 1, 4.0, 6.0, 7, None, 21)
        assert [row[:5] for row in rows_of_level(bucket, 4)] == [(0, 256, 1, -99.0, 255.0), (256, 45, 0, 256.0, 300.0)]
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    assert MetricSeries.objects.values_list("num_points", "last_step", "last_value").get() == (301, 300, 300.0)
    (points,) = run_metrics(PhaseRun.objects.get())["series"]
    assert (points["x"], points["last"], points["tokens"][-1]) == (list(range(301)), values, 900)
    (folded,) = run_metrics(run, max_buckets=10)["series"]
    assert (min(folded["min"]), max(folded["max"]), sum(folded["n"]), sum(folded["nonfinite"])) == (-99.0, 300.0, 301, 1)
