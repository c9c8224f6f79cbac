from itertools import islice

import django.db.models.deletion
from django.db import migrations, models

ROWS = 20_000


def pack(apps, schema_editor):
    """Points that lie in rows become chunks. What is written is derived, so the code in force may write it."""
    from training_app import buckets, pyramid

    for series in apps.get_model("training_app", "MetricSeries").objects.order_by("pk").iterator():
        series.num_points, series.tail = 0, b""
        rows = (
            series.buckets.filter(level=0).order_by("start_step")
            .values_list("last_step", "last_time", "last_tokens", "last_process_seconds", "last_value")
            .iterator(chunk_size=ROWS)
        )
        while some := list(islice(rows, ROWS)):
            values = [float("nan") if row[-1] is None else row[-1] for row in some]
            pyramid.write([(series, buckets.points([row[:-1] for row in some], values))])
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")


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
        migrations.RunPython(pack),
        migrations.DeleteModel("MetricBucket"),
    ]
