import django.db.models.fields.json
import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [("training_app", "0008_metric_chunks")]

    operations = [
        migrations.AddField(
            model_name="phaserun",
            name="dollars_per_device_hour",
            field=models.GeneratedField(
                db_persist=True,
                expression=django.db.models.functions.comparison.Cast(
                    django.db.models.fields.json.KeyTextTransform(
                        "dollars_per_device_hour", django.db.models.fields.json.KeyTextTransform("budget", "config")
                    ),
                    models.FloatField(),
                ),
                output_field=models.FloatField(null=True),
            ),
        ),
    ]
