"""Points that lie in rows become chunks, and back. What is stored is written down here as it was: the code goes on without it."""

from itertools import islice

import django.db.models.deletion
import numpy as np
from django.db import migrations, models

ROWS = 20_000
CHUNK_BITS, LEVEL_BITS, NUM_LEVELS, NUM_ROW_LEVELS = 6, 2, 12, 10
BUCKET = np.dtype([
    ("step", "<i8"), ("n", "<i4"), ("nonfinite", "<i4"), ("min", "<f8"), ("max", "<f8"), ("last", "<f8"),
    ("time", "<f8"), ("tokens", "<i8"), ("process", "<f8"),
])  # fmt: skip


def pack(apps, schema_editor):
    chunk = apps.get_model("training_app", "MetricChunk")
    for series in apps.get_model("training_app", "MetricSeries").objects.order_by("pk").iterator():
        rows = series.buckets.filter(level=0).order_by("start_step").values_list(
            "last_step", "last_value", "last_time", "last_tokens", "last_process_seconds"
        )
        points = np.array([_point(*row) for row in rows.iterator(chunk_size=ROWS)], BUCKET)
        newest = int(points["step"][-1]) if len(points) else 0
        for level in range(NUM_LEVELS):
            bits = CHUNK_BITS + LEVEL_BITS * level
            sealed = _fold(points[points["step"] < newest >> bits << bits], 1 << LEVEL_BITS * level)
            starts = sealed["step"] >> bits << bits
            pieces = np.split(sealed, np.flatnonzero(starts[1:] != starts[:-1]) + 1) if len(sealed) else []
            chunk.objects.bulk_create(
                [chunk(series=series, level=level, start_step=int(one["step"][0]) >> bits << bits, data=one.tobytes()) for one in pieces],
                batch_size=500,
            )
        tail = points[points["step"] >= newest >> CHUNK_BITS << CHUNK_BITS]
        series.num_points, series.tail = len(points), tail.tobytes()
        series.save(update_fields=["num_points", "tail"])
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def unpack(apps, schema_editor):
    bucket = apps.get_model("training_app", "MetricBucket")
    for series in apps.get_model("training_app", "MetricSeries").objects.order_by("pk").iterator():
        chunks = series.chunks.filter(level=0).order_by("start_step").values_list("data", flat=True).iterator()
        points = np.frombuffer(b"".join([*map(bytes, chunks), bytes(series.tail)]), BUCKET)
        for level in range(NUM_ROW_LEVELS):
            rows = (_row(bucket, series, level, one) for one in _fold(points, 1 << LEVEL_BITS * level))
            while some := list(islice(rows, ROWS)):
                bucket.objects.bulk_create(some, batch_size=1000)
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _point(step, value, time, tokens, process):
    number = float("nan") if value is None else value
    return step, 1, value is None, number, number, number, time, tokens, process


def _row(bucket, series, level, one):
    step, n, nonfinite, low, high, last, time, tokens, process = one.tolist()
    low, high, last = (None if value != value else value for value in (low, high, last))
    return bucket(
        series=series, level=level, start_step=step >> LEVEL_BITS * level << LEVEL_BITS * level, num_points=n, num_nonfinite=nonfinite,
        minimum=low, maximum=high, last_step=step, last_value=last, last_time=time, last_tokens=tokens, last_process_seconds=process,
    )


def _fold(buckets, width):
    if not len(buckets):
        return buckets
    places = buckets["step"] // width
    firsts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
    found = buckets[np.append(firsts[1:], len(buckets)) - 1]
    found["n"] = np.add.reduceat(buckets["n"], firsts)
    found["nonfinite"] = np.add.reduceat(buckets["nonfinite"], firsts)
    found["min"] = np.fmin.reduceat(buckets["min"], firsts)
    found["max"] = np.fmax.reduceat(buckets["max"], firsts)
    return found


class Migration(migrations.Migration):

    dependencies = [("training_app", "0007_alert_done")]

    operations = [
        migrations.AddField("metricseries", "tail", models.BinaryField(default=b"")),
        migrations.CreateModel(
            "MetricChunk",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("level", models.PositiveSmallIntegerField()),
                ("start_step", models.BigIntegerField()),
                ("data", models.BinaryField()),
                ("series", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="chunks", to="training_app.metricseries")),
            ],
            options={"constraints": [models.UniqueConstraint(fields=("series", "level", "start_step"), name="chunk_once")]},
        ),
        # Floats hardly compress, and a chart reads many: neither time nor space is won by trying.
        migrations.RunSQL("ALTER TABLE training_app_metricchunk ALTER COLUMN data SET STORAGE EXTERNAL", migrations.RunSQL.noop),
        migrations.RunSQL("ALTER TABLE training_app_metricseries ALTER COLUMN tail SET STORAGE EXTERNAL", migrations.RunSQL.noop),
        migrations.RunPython(pack, unpack),
        migrations.DeleteModel("MetricBucket"),
    ]
