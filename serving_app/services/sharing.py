"""Links to a conversation, and presets: what one person lets others of the project use."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from model_core.errors import ConfigError
from r1platform.models import Project
from r1platform.services import audit
from serving_app.gateway.body import check_parameters
from serving_app.models import Conversation, ConversationShare, Message, Preset
from serving_app.states import GENERATION_ENDS
from serving_app.texts import refuse_unstorable

MAX_PROMPT = 8_000
MAX_NAME = 60
MAX_PRESETS = 100
"""Of one person in a project."""


@transaction.atomic
def conversation_share(*, conversation: Conversation, user: User, leaf: Message | None = None) -> ConversationShare:
    """A link to the branch that ends in `leaf`, else in the newest message; the open one when there is one to it already.

    Raises ConfigError for a conversation without messages and while its last answer is being written.
    """
    assert conversation.user_id == user.pk, "doors let only the owner through"
    last = leaf or conversation.messages.order_by("-pk").first()
    if last is None or last.conversation_id != conversation.pk:
        raise ConfigError("There is nothing to share yet. Say something first.", field="at")
    if last.state not in GENERATION_ENDS:
        raise ConfigError("The answer is still being written. Share it when it has ended.", field="at")
    found = conversation.shares.filter(leaf=last, revoked_at=None).first()
    if found is not None:
        return found
    made = ConversationShare.objects.create(conversation=conversation, leaf=last, token=secrets.token_urlsafe(24))
    made.refresh_from_db()
    _audit(conversation, user, "conversation.share")
    return made


@transaction.atomic
def conversation_unshare(*, share: ConversationShare, user: User) -> None:
    """Ends a link; one that has ended is no error."""
    assert share.conversation.user_id == user.pk, "doors let only the owner through"
    if ConversationShare.objects.filter(pk=share.pk, revoked_at=None).update(revoked_at=Now()):
        _audit(share.conversation, user, "conversation.unshare")


def preset_create(
    *, project: Project, user: User, name: str, system_prompt: str = "", parameters: dict[str, Any] | None = None,
    is_shared: bool = False,
) -> Preset:  # fmt: skip
    """A preset. Raises ConfigError at the field for a name that is empty, too long or taken, and for a wrong parameter."""
    name = refuse_unstorable(name, "name").strip()
    if not name or len(name) > MAX_NAME:
        raise ConfigError(f"A preset's name has 1 to {MAX_NAME} characters; this has {len(name)}.", field="name")
    if len(system_prompt) > MAX_PROMPT:
        sentence = f"The system prompt has {len(system_prompt)} characters; at most {MAX_PROMPT} fit."
        raise ConfigError(sentence, field="system_prompt")
    if Preset.objects.filter(project=project, user=user).count() >= MAX_PRESETS:
        raise ConfigError(f"You have {MAX_PRESETS} presets here, as many as fit. Delete one first.", field="name")
    try:
        with transaction.atomic():
            made = Preset.objects.create(
                project=project, user=user, name=name, is_shared=is_shared, parameters=check_parameters(parameters or {}),
                system_prompt=refuse_unstorable(system_prompt, "system_prompt"),
            )  # fmt: skip
    except IntegrityError:
        raise ConfigError(f"You have a preset “{name}” already. Choose another name.", field="name") from None
    made.refresh_from_db()
    return made


def preset_delete(*, preset: Preset, user: User) -> None:
    """Deletes it; conversations that used it keep what it said."""
    assert preset.user_id == user.pk, "doors let only the owner through"
    preset.delete()


def _audit(conversation: Conversation, user: User, action: str) -> None:
    audit(user=user, project=conversation.project, action=action, target=f"conversation:{conversation.pk}")
