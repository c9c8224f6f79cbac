"""Scalars at every zoom: a min/max/last/count pyramid per series, written and read by `training_app.pyramid`."""

from __future__ import annotations

from django.db import models

from training_app.models.runs import PhaseRun


class MetricSeries(models.Model):
    """One named scalar of one run."""

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="series")
    name = models.CharField(max_length=120)
    num_points = models.BigIntegerField(default=0)
    first_step = models.BigIntegerField(default=0)
    last_step = models.BigIntegerField(default=0)
    last_value = models.FloatField(null=True)
    tail = models.BinaryField(default=b"")
    """Points behind the last sealed chunk, as in `MetricChunk.data`."""

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="series_once")]


class MetricChunk(models.Model):
    """`training_app.buckets.BUCKET` records of one series side by side; of level k they hold 4**k steps each.

    Written once, when the series has gone beyond its last step. Bytes rather than rows: a chart reads hundreds of thousands.
    """

    series = models.ForeignKey(MetricSeries, on_delete=models.CASCADE, related_name="chunks")
    level = models.PositiveSmallIntegerField()
    start_step = models.BigIntegerField()
    data = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["series", "level", "start_step"], name="chunk_once")]
