import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

PROJECT = """
    UPDATE training_app_alert SET project_id = run.project_id FROM training_app_phaserun AS run WHERE run.id = training_app_alert.run_id;
    SET CONSTRAINTS ALL IMMEDIATE;
"""
"""What was told of runs is their project's. The second line ends what the update has put off, before the table is altered."""


class Migration(migrations.Migration):

    dependencies = [
        ('r1platform', '0004_key_limits'),
        ('training_app', '0010_phase_from_checkpoint'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(model_name='alertrule', name='alert_rule_kind'),
        migrations.AlterField(
            model_name='alertrule',
            name='kind',
            field=models.CharField(choices=[('nonfinite', 'A number is not finite'), ('above', 'A metric is above a number'), ('below', 'A metric is below a number'), ('sign', 'The reward may be gamed'), ('stall', 'Nothing is heard of a run'), ('ended', 'A run fails, is lost or is held at its gate'), ('done', 'A run is done, well or badly'), ('money', 'A key comes near its money')], max_length=10),
        ),
        migrations.AddConstraint(
            model_name='alertrule',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['nonfinite', 'above', 'below', 'sign', 'stall', 'ended', 'done', 'money'])), name='alert_rule_kind'),
        ),
        migrations.AddConstraint(
            model_name='alertrule',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'money'), _negated=True), models.Q(('threshold__gt', 0), ('threshold__lte', 100)), _connector='OR'), name='alert_rule_percent'),
        ),
        migrations.AddField(
            model_name='alert',
            name='project',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='r1platform.project'),
        ),
        migrations.RunSQL(PROJECT, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='alert',
            name='project',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='r1platform.project'),
        ),
        migrations.AlterField(
            model_name='alert',
            name='run',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='training_app.phaserun'),
        ),
        migrations.AddField(
            model_name='alert',
            name='api_key',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='r1platform.apikey'),
        ),
        migrations.AddField(
            model_name='alert',
            name='once',
            field=models.CharField(blank=True, default='', max_length=120),
        ),
        migrations.AddConstraint(
            model_name='alert',
            constraint=models.UniqueConstraint(condition=models.Q(('once', ''), _negated=True), fields=('rule', 'once'), name='alert_told_once'),
        ),
        migrations.AddConstraint(
            model_name='alert',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('api_key', None), ('once', ''), ('run__isnull', False)), models.Q(('api_key__isnull', False), ('run', None), models.Q(('once', ''), _negated=True)), _connector='OR'), name='alert_about_one'),
        ),
        migrations.AddIndex(
            model_name='alert',
            index=models.Index(fields=['project', '-id'], name='alert_of_project'),
        ),
    ]
