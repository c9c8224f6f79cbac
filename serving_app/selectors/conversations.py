"""Conversations of one user, and one of them as the rows of a tree."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet

from r1platform.access import for_user
from r1platform.models import Project
from serving_app.models import Conversation, Message


def conversation_list(
    *, user: User | AnonymousUser, project: Project | None = None, text: str = ""
) -> QuerySet[Conversation]:
    """The user's own conversations in projects that they are still a member of, newest first."""
    found = for_user(Conversation.objects.all(), user).filter(user=user.pk).select_related("deployment", "project")
    if project is not None:
        found = found.filter(project=project)
    return found.filter(title__icontains=text) if text else found


def conversation_tree(*, conversation: Conversation) -> list[dict[str, Any]]:
    """Every message in the order it was written, as JSON; `parent` makes the tree."""
    return [message_json(message) for message in conversation.messages.order_by("pk")]


def message_json(message: Message) -> dict[str, Any]:
    """One message as sockets and API show it."""
    return {
        "id": message.pk,
        "parent": message.parent_id,
        "role": message.role,
        "content": message.content,
        "reasoning": message.reasoning,
        "state": message.state,
        "state_reason": message.state_reason,
        "seq": message.seq,
        "usage": message.usage,
        "created_at": message.created_at.isoformat(),
    }
