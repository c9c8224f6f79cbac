"""Scalars at every zoom: a min/max/last/count pyramid per series, written by `training_app.ingest` with COPY."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from training_app.models.runs import PhaseRun


class MetricSeries(models.Model):
    """One named scalar of one run."""

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="series")
    name = models.CharField(max_length=120)
    num_points = models.BigIntegerField(default=0)
    first_step = models.BigIntegerField(default=0)
    last_step = models.BigIntegerField(default=0)
    last_value = models.FloatField(null=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="series_once")]


class MetricBucket(models.Model):
    """What one series did over `4**level` consecutive steps from `start_step`; level 0 is the points themselves.

    `minimum` and `maximum` leave NaN and infinities out; those are counted in `num_nonfinite` so that the chart can
    mark them. `last_*` describe the newest point of the bucket.
    """

    series = models.ForeignKey(MetricSeries, on_delete=models.CASCADE, related_name="buckets")
    level = models.PositiveSmallIntegerField()
    start_step = models.BigIntegerField()
    num_points = models.IntegerField()
    num_nonfinite = models.IntegerField(default=0)
    minimum = models.FloatField(null=True)
    maximum = models.FloatField(null=True)
    last_step = models.BigIntegerField()
    last_value = models.FloatField(null=True)
    last_time = models.FloatField()
    """Seconds since the epoch, as the trainer wrote it."""
    last_tokens = models.BigIntegerField(default=0)
    last_process_seconds = models.FloatField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["series", "level", "start_step"], name="bucket_once"),
            models.CheckConstraint(condition=Q(num_points__gte=1), name="bucket_not_empty"),
        ]
