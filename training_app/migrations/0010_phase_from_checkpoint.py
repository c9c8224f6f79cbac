import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):

    dependencies = [("training_app", "0009_hourly_price")]

    operations = [
        migrations.AddField(
            model_name="pipelinephase",
            name="from_checkpoint",
            field=models.ForeignKey(
                blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="training_app.checkpoint"
            ),
        ),
        migrations.AddConstraint(
            model_name="pipelinephase",
            constraint=models.CheckConstraint(
                condition=Q(starts_from=None) | Q(from_checkpoint=None), name="phase_starts_once"
            ),
        ),
    ]
