"""Conversations as trees of messages."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Project
from serving_app.models.deployments import Deployment
from serving_app.states import GenerationState


class Preset(models.Model):
    """A system prompt and parameters by a name: its user's own, or shared with the project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="presets")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="presets")
    name = models.CharField(max_length=60)
    is_shared = models.BooleanField(default=False)
    system_prompt = models.TextField(blank=True, default="")
    parameters = models.JSONField(default=dict)
    """As those of a conversation."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name", "id"]
        constraints = [models.UniqueConstraint(fields=["project", "user", "name"], name="preset_name_once")]

    def __str__(self) -> str:
        return self.name


class Conversation(models.Model):
    """A chat of one user with a deployment."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversations")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    deployment = models.ForeignKey(Deployment, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    title = models.CharField(max_length=160, blank=True, default="")
    system_prompt = models.TextField(blank=True, default="")
    beside = models.JSONField(default=list)
    """Ids of the deployments that answer beside `deployment`, in the order of their columns; empty: it answers alone."""
    parameters = models.JSONField(default=dict)
    """temperature, top_p, max_tokens … as the gateway takes them."""
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-updated_at"]


class Message(models.Model):
    """One turn. An assistant's turn is filled by `serving_app.generation` while it streams."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")
    deployment = models.ForeignKey(Deployment, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    """Who answers; of a message of the user, and of answers older than this field, none is named."""
    column = models.PositiveSmallIntegerField(null=True, blank=True)
    """Place in a comparison, from 0; empty: it answers alone."""
    edit_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="edits")
    """The answer that a person wrote this one in place of."""
    role = models.CharField(max_length=10, choices=[("user", "User"), ("assistant", "Assistant")])
    content = models.TextField(blank=True, default="")
    reasoning = models.TextField(blank=True, default="")
    prefix = models.TextField(blank=True, default="")
    """What the answer was begun with, thinking with its marks: it goes on from there, and has it in its texts."""
    tokens = models.JSONField(null=True, blank=True)
    """[text, log-probability, [[text, log-probability] of the likeliest]] of each token after the prefix, when they were asked
    for."""
    state = models.CharField(max_length=12, choices=GenerationState.choices, default=GenerationState.DONE)
    state_reason = models.TextField(blank=True, default="")
    stop_wanted = models.BooleanField(default=False)
    seq = models.PositiveIntegerField(default=0)
    """Number of stream events so far; content and reasoning hold all of them up to here."""
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    usage = models.JSONField(default=dict)
    """prompt_tokens, completion_tokens, reasoning_tokens, ttft_seconds, seconds, tokens_per_second, finish_reason, error_code,
    thinking_cut."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(role__in=["user", "assistant"]), name="message_role"),
            one_of("state", GenerationState, name="message_state"),
        ]
        indexes = [
            models.Index(
                fields=["heartbeat_at"], condition=Q(state__in=["queued", "thinking", "answering"]), name="message_live"
            )
        ]


class ConversationShare(models.Model):
    """A link by which members of the project read one branch, as far as it went then; it ends when it is revoked."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="shares")
    leaf = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")
    """The last message that is shown."""
    token = models.CharField(max_length=40, unique=True)
    created_at = models.DateTimeField(db_default=Now())
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
