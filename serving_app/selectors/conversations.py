"""Conversations of one user, and one of them as the rows of a tree."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet

from r1platform.access import for_user
from r1platform.models import Project
from serving_app.models import Conversation, ConversationShare, Message, Preset


def conversation_list(
    *, user: User | AnonymousUser, project: Project | None = None, text: str = ""
) -> QuerySet[Conversation]:
    """The user's own conversations in projects that they are still a member of, newest first."""
    found = for_user(Conversation.objects.all(), user).filter(user=user.pk).select_related("deployment", "project")
    if project is not None:
        found = found.filter(project=project)
    return found.filter(title__icontains=text) if text else found


def share_found(*, user: User | AnonymousUser, token: str) -> ConversationShare | None:
    """The open share of this token, for members of its project."""
    found = for_user(ConversationShare.objects.filter(token=token, revoked_at=None), user, path="conversation__project")
    return found.select_related("conversation__project", "conversation__user", "conversation__deployment").first()


def preset_list(*, user: User | AnonymousUser, project: Project | None = None) -> QuerySet[Preset]:
    """The user's own presets and those that are shared with their projects, by name."""
    found = for_user(Preset.objects.all(), user).filter(Q(user=user.pk) | Q(is_shared=True)).select_related("user")
    return found if project is None else found.filter(project=project)


def conversation_messages(*, conversation: Conversation) -> QuerySet[Message]:
    """Its messages in the order they were written, each with its deployment and `has_tokens` instead of the tokens."""
    found = conversation.messages.defer("tokens").select_related("deployment").order_by("pk")
    return found.annotate(has_tokens=ExpressionWrapper(Q(tokens__isnull=False), output_field=BooleanField()))


def conversation_tree(*, conversation: Conversation) -> list[dict[str, Any]]:
    """Every message in the order it was written, as JSON; `parent` makes the tree."""
    return [message_json(message) for message in conversation.messages.defer("tokens").order_by("pk")]


def message_json(message: Message) -> dict[str, Any]:
    """One message as sockets and API show it."""
    return {
        "id": message.pk,
        "parent": message.parent_id,
        "role": message.role,
        "deployment": message.deployment_id,
        "column": message.column,
        "edit_of": message.edit_of_id,
        "content": message.content,
        "reasoning": message.reasoning,
        "state": message.state,
        "state_reason": message.state_reason,
        "seq": message.seq,
        "usage": message.usage,
        "created_at": message.created_at.isoformat(),
    }
