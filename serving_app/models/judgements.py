"""What people said of answers, with the texts that they said it of: the rows of the next dataset."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Project
from serving_app.models.conversations import Message
from serving_app.models.deployments import Deployment
from serving_app.states import ReviewState
from training_app.models import DatasetVersion


class JudgementKind(models.TextChoices):
    """How it was said."""

    RATING = "rating", "Rating"
    EDIT = "edit", "Edited answer"
    CHOICE = "choice", "Side by side"


class Judgement(models.Model):
    """One person on one answer, or on two answers to the same prompt; the texts are kept as they were then.

    `value` is 1 for good or better, -1 for bad, 0 for a tie of two. A good answer is `chosen`, a bad one `rejected`; an edit and
    a choice have both. A person has one judgement of a kind on the same answers: another one takes its place, unreviewed.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="judgements")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="judgements")
    kind = models.CharField(max_length=10, choices=JudgementKind.choices)
    value = models.SmallIntegerField()
    reasons = models.JSONField(default=list)
    """Names of `serving_app.reasons.REASONS`."""
    comment = models.TextField(blank=True, default="")
    message = models.ForeignKey(Message, null=True, on_delete=models.SET_NULL, related_name="judgements")
    """The answer that was judged, written in place of another, or preferred."""
    other = models.ForeignKey(Message, null=True, on_delete=models.SET_NULL, related_name="+")
    """The answer that it was compared with."""
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="judgements")
    """Who wrote the answer; nobody, when a person did."""
    other_deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="+")
    prompt = models.JSONField()
    """The turns before the answer, each {"role", "content"}, as the model was told them."""
    chosen = models.TextField(blank=True, default="")
    """The better text, its thinking between `<think>` and `</think>`."""
    rejected = models.TextField(blank=True, default="")
    state = models.CharField(max_length=10, choices=ReviewState.choices, default=ReviewState.PENDING)
    state_reason = models.TextField(blank=True, default="")
    reviewed_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    reviewed_at = models.DateTimeField(null=True, blank=True)
    versions = models.ManyToManyField(DatasetVersion, related_name="judgements")
    """The dataset versions that it went into."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("kind", JudgementKind, name="judgement_kind"),
            one_of("state", ReviewState, name="judgement_state"),
            models.CheckConstraint(condition=Q(value__in=[-1, 0, 1]), name="judgement_value"),
            models.CheckConstraint(condition=~Q(chosen="", rejected=""), name="judgement_has_a_text"),
            models.CheckConstraint(
                condition=Q(kind="rating") | (~Q(chosen="") & ~Q(rejected="")), name="judgement_of_two_has_both"
            ),
            models.UniqueConstraint(
                fields=["user", "message", "kind"], condition=Q(kind__in=["rating", "edit"]), name="judgement_once"
            ),
            models.UniqueConstraint(
                fields=["user", "message", "other"], condition=Q(kind="choice"), name="judgement_choice_once"
            ),
        ]
        indexes = [models.Index(fields=["project", "state", "-id"], name="judgement_queue")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"
