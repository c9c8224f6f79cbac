"""Conversations as trees of messages, and the verbs on them. `serving_app.generation` fills a queued answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from model_core.errors import ConfigError, EngineError
from r1platform.lib.live import publish
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from serving_app import generation
from serving_app.gateway.body import check_parameters
from serving_app.gateway.limits import Slot
from serving_app.models import Conversation, Deployment, Judgement, Message
from serving_app.states import GENERATION_ENDS, DeploymentState, GenerationState, ReviewState
from serving_app.texts import refuse_unstorable, title_of
from serving_app.transitions import message_transition

MAX_CHARS = 100_000
MAX_MESSAGES = 2_000
MAX_COLUMNS = 4
"""Models that can be compared."""
_CANNOT_ANSWER = {DeploymentState.STOPPED, DeploymentState.STOPPING, DeploymentState.FAILED}


def conversation_create(
    *,
    project: Project,
    user: User,
    deployment: Deployment | None = None,
    beside: Sequence[int] = (),
    system_prompt: str = "",
    parameters: dict[str, Any] | None = None,
    title: str = "",
) -> Conversation:
    """An empty conversation, with the ids of the deployments that answer `beside` the first.

    Raises ConfigError when a parameter is unknown or out of its range, or a deployment is not the project's.
    """
    _check_deployment(project, deployment)
    conversation = Conversation.objects.create(
        project=project, user=user, deployment=deployment, beside=_beside(project, deployment, beside), title=_title(title),
        system_prompt=_text(system_prompt, "system_prompt"), parameters=check_parameters(parameters or {}),
    )  # fmt: skip
    conversation.refresh_from_db()
    return conversation


def conversation_update(
    *,
    conversation: Conversation,
    user: User,
    title: str | None = None,
    deployment: Deployment | None = None,
    beside: Sequence[int] | None = None,
    system_prompt: str | None = None,
    parameters: dict[str, Any] | None = None,
) -> Conversation:
    """Changes what is given; the next answer uses it."""
    assert conversation.user_id == user.pk, "doors let only the owner through"
    changes: dict[str, Any] = {}
    if title is not None:
        changes["title"] = _title(title)
    if deployment is not None:
        _check_deployment(conversation.project, deployment)
        changes["deployment"] = deployment
    if beside is not None or deployment is not None:
        kept = [pk for pk in conversation.beside if deployment is None or pk != deployment.pk]
        first = deployment or conversation.deployment
        changes["beside"] = _beside(conversation.project, first, beside) if beside is not None else kept
    if system_prompt is not None:
        changes["system_prompt"] = _text(system_prompt, "system_prompt")
    if parameters is not None:
        changes["parameters"] = check_parameters(parameters)
    if changes:
        Conversation.objects.filter(pk=conversation.pk).update(updated_at=Now(), **changes)
        transaction.on_commit(lambda: publish(f"chat.{conversation.pk}", "conversation", conversation=conversation.pk))
        conversation.refresh_from_db()
    return conversation


def conversation_delete(*, conversation: Conversation, user: User) -> None:
    """Deletes it with its messages and the judgements that nobody has accepted; what still streams ends. Usage stays."""
    assert conversation.user_id == user.pk, "doors let only the owner through"
    Judgement.objects.filter(message__conversation=conversation).exclude(state=ReviewState.ACCEPTED).delete()
    live = list(conversation.messages.exclude(state__in=GENERATION_ENDS).values_list("pk", flat=True))
    conversation.delete()
    transaction.on_commit(lambda: [generation.cancel(pk) for pk in live])


@transaction.atomic
def message_send(
    *, conversation: Conversation, user: User, content: str, parent: Message | None = None, slots: list[Slot] | None = None
) -> tuple[Message, Message]:
    """Adds what the user says after `parent` (else at the newest end) and queues the answer, booked on the API key.

    Raises ConfigError for an empty or too long text, EngineError when no model can answer, IllegalTransition while the
    message before it is still being answered.
    """
    locked = _locked(conversation)
    text = _said(content)
    _answerable(locked)
    before = parent or locked.messages.order_by("-id").first()
    if before is not None and before.role == "user":
        raise ConfigError("This message has no answer yet; regenerate it or edit it.", field="parent")
    if before is not None and before.state not in GENERATION_ENDS:
        raise IllegalTransition("Answer", before.pk, before.state, "sent again")
    said = Message.objects.create(conversation=locked, parent=before, role="user", content=text)
    answer = _queue_all(locked, said, slots)
    changes = {} if locked.title else {"title": title_of(text)}
    Conversation.objects.filter(pk=locked.pk).update(updated_at=Now(), **changes)
    _announce(locked.pk, said)
    return said, answer


@transaction.atomic
def message_edit(
    *, message: Message, user: User, content: str, slots: list[Slot] | None = None
) -> tuple[Message, Message]:
    """Another wording beside a message of the user, with its own answer; the old branch stays."""
    locked = _locked(message.conversation)
    assert locked.user_id == user.pk, "doors let only the owner through"
    if message.role != "user":
        raise ConfigError("Only your own messages can be edited; an answer can be regenerated.", field="message")
    _answerable(locked)
    said = Message.objects.create(conversation=locked, parent=message.parent, role="user", content=_said(content))
    answer = _queue_all(locked, said, slots)
    _announce(locked.pk, said)
    return said, answer


@transaction.atomic
def message_regenerate(*, message: Message, user: User, slots: list[Slot] | None = None) -> Message:
    """Another answer beside this one, in a comparison by the same model; for a message of the user that has none, its first."""
    locked = _locked(message.conversation)
    assert locked.user_id == user.pk, "doors let only the owner through"
    if message.role != "assistant":
        _answerable(locked)
        return _queue_all(locked, message, slots)
    if message.state not in GENERATION_ENDS:
        raise IllegalTransition("Answer", message.pk, message.state, "generated again")
    return answer_queue(beside=message, slots=slots)


@transaction.atomic
def answer_queue(*, beside: Message, slots: list[Slot] | None, **begun: str) -> Message:
    """Another answer to the same message: in a comparison by the model of that column, else by the conversation's.

    `begun` are the fields of one that goes on from something. Raises EngineError when the model cannot answer now.
    """
    locked = _locked(beside.conversation)
    assert beside.parent is not None, "an answer has a question"
    deployment = (beside.edit_of or beside).deployment if beside.column is not None else locked.deployment
    _answerable(locked, [deployment])
    return _queue(locked, beside.parent, slots, deployment, beside.column, **begun)


def message_stop(*, message: Message, user: User) -> None:
    """Ends an answer and keeps what is there, also while it thinks. Raises IllegalTransition when it has ended."""
    assert message.conversation.user_id == user.pk, "doors let only the owner through"
    live = Message.objects.filter(pk=message.pk, role="assistant").exclude(state__in=GENERATION_ENDS)
    if not live.update(stop_wanted=True):
        message.refresh_from_db()
        raise IllegalTransition("Answer", message.pk, message.state, GenerationState.STOPPED)
    transaction.on_commit(lambda: generation.cancel(message.pk))


def message_interrupt(*, message: Message) -> bool:
    """Marks an answer whose server has gone silent; what was written stays."""
    try:
        return message_transition(
            message_id=message.pk, conversation_id=message.conversation_id, to=GenerationState.INTERRUPTED,
            reason="The server that wrote this answer was restarted. Regenerate it.",
        )  # fmt: skip
    except IllegalTransition:
        return False


def why_not(error: IllegalTransition) -> str:
    """Why an answer could not be stopped, followed or given again, as a sentence."""
    if error.current in GENERATION_ENDS:
        return "That answer has ended already."
    return "That answer is still being written. Wait for its end or stop it first."


def _locked(conversation: Conversation) -> Conversation:
    rows = Conversation.objects.select_for_update(of=("self",)).select_related("project", "deployment")
    return rows.get(pk=conversation.pk)


def _check_deployment(project: Project, deployment: Deployment | None) -> None:
    if deployment is not None and (deployment.project_id != project.pk or deployment.deleted_at is not None):
        raise ConfigError("This project has no such deployment. Choose one of its own.", field="deployment")


def _beside(project: Project, first: Deployment | None, ids: Sequence[int]) -> list[int]:
    """The ids as they are kept. Raises ConfigError."""
    if not ids:
        return []
    if first is None or first.pk in ids or len(set(ids)) != len(ids) or len(ids) >= MAX_COLUMNS:
        raise ConfigError(f"Two to {MAX_COLUMNS} different models can be compared. Choose again.", field="beside")
    found = Deployment.objects.filter(project=project, deleted_at=None, pk__in=ids).count()
    if found != len(ids):
        raise ConfigError("This project has no such deployment. Choose of its own.", field="beside")
    return list(ids)


def num_columns(conversation: Conversation) -> int:
    """How many models answer a message."""
    return 1 + len(conversation.beside)


def compared(conversation: Conversation) -> list[Deployment | None]:
    """Who answers, in the order of the columns; None is one that was deleted."""
    named = Deployment.objects.in_bulk(conversation.beside) if conversation.beside else {}
    return [conversation.deployment, *(named.get(pk) for pk in conversation.beside)]


def _answerable(conversation: Conversation, deployments: Sequence[Deployment | None] | None = None) -> None:
    """Raises EngineError naming the deployment that cannot answer; by default all are asked that the conversation has."""
    for deployment in compared(conversation) if deployments is None else deployments:
        if deployment is None or deployment.deleted_at is not None:
            raise EngineError("The model of this conversation was deleted. Choose another one.", field="deployment")
        if deployment.state in _CANNOT_ANSWER:
            label = deployment.get_state_display().lower()
            raise EngineError(
                f"“{deployment.name}” is {label} and cannot answer. Start it, or choose another model.", field="deployment"
            )
    if conversation.messages.count() >= MAX_MESSAGES:
        raise ConfigError(f"A conversation holds at most {MAX_MESSAGES} messages. Begin a new one.", field="content")


def _said(content: str) -> str:
    text = _text(content, "content").strip()
    if not text:
        raise ConfigError("The message is empty. Write something first.", field="content")
    return text


def _text(value: str, field: str) -> str:
    if len(value) > MAX_CHARS:
        raise ConfigError(f"The text has {len(value)} characters; at most {MAX_CHARS} fit. Shorten it.", field=field)
    return refuse_unstorable(value, field)


def _title(value: str) -> str:
    return refuse_unstorable(value, "title").strip()[:160]


def _queue_all(conversation: Conversation, said: Message, slots: list[Slot] | None) -> Message:
    """An answer of each model that is compared, or of the only one; the first is returned."""
    models = compared(conversation)
    if len(models) == 1:
        return _queue(conversation, said, slots, conversation.deployment)
    first, *_others = [_queue(conversation, said, slots, model, column) for column, model in enumerate(models)]
    return first


def _queue(
    conversation: Conversation, said: Message, slots: list[Slot] | None, deployment: Deployment | None, column: int | None = None,
    **begun: str,
) -> Message:  # fmt: skip
    answer = Message.objects.create(
        conversation=conversation, parent=said, role="assistant", state=GenerationState.QUEUED, heartbeat_at=Now(),
        deployment=deployment, column=column, **begun,
    )  # fmt: skip
    answer.refresh_from_db()
    slot = slots.pop() if slots else None
    _announce(conversation.pk, answer)
    transaction.on_commit(lambda: generation.start(answer.pk, slot))
    return answer


def _announce(conversation_id: int, message: Message) -> None:
    payload = {
        "message": message.pk, "parent": message.parent_id, "role": message.role, "state": str(message.state),
        "reason": "", "seq": 0,
    }  # fmt: skip
    transaction.on_commit(lambda: publish(f"chat.{conversation_id}", "state", **payload))
