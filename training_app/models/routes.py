"""Questions about routing: which experts the tokens of a text are sent to."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from training_app.models.runs import Checkpoint, PhaseRun


class RoutedText(models.Model):
    """One text that a checkpoint of a run is asked to route; the answer is a file, see `training_app.routes`."""

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="routed_texts")
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.CASCADE, related_name="+")
    prompt = models.TextField()
    completion = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"Routes {self.pk} of run {self.run_id}"
