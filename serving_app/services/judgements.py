"""What people say of answers: ratings, answers written anew, choices between answers; and what editors make of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from model_core.errors import ConfigError
from model_core.serving.reasoning import CLOSE, OPEN
from r1platform.lib.live import publish
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from r1platform.services import audit
from serving_app.context import turns_before
from serving_app.models import Conversation, Judgement, JudgementKind, Message
from serving_app.reasons import MAX_COMMENT, reasons_checked
from serving_app.services.conversations import MAX_CHARS
from serving_app.states import GENERATION_ENDS, ReviewState
from serving_app.texts import refuse_unstorable
from serving_app.transitions import judgement_transition

MAX_REVIEWED = 200
"""Judgements that one call reviews."""


@transaction.atomic
def message_rate(
    *, message: Message, user: User, value: int, reasons: Iterable[str] = (), comment: str = ""
) -> Judgement | None:
    """Says that an answer is good (1) or bad (-1) and why; 0 takes the rating back. Another one takes its place.

    Raises ConfigError for what is no rating, IllegalTransition while the answer is being written.
    """
    _check_owner(message, user)
    if value not in {-1, 0, 1}:
        raise ConfigError("A rating is 1 for good, -1 for bad, or 0 to take it back.", field="value")
    text = with_thinking(message)
    _check_ended(message)
    before = Judgement.objects.filter(user=user, message=message, kind=JudgementKind.RATING)
    _one_at_a_time(message)
    if value == 0:
        before.delete()
        _tell(message)
        return None
    found = {"chosen" if value > 0 else "rejected": text}
    given = {"value": value, "reasons": reasons_checked(reasons, value), "comment": _comment(comment)}
    before.delete()
    return _judge(JudgementKind.RATING, user, message, None, **given, **found)


@transaction.atomic
def message_rewrite(*, message: Message, user: User, content: str, reasoning: str = "") -> Message:
    """An answer of a person in place of this one, beside it in the tree; the pair of both is judged better and worse.

    Raises ConfigError for a text that is empty, too long or the same.
    """
    _check_owner(message, user)
    _check_ended(message)
    original = message.edit_of or message
    _one_at_a_time(message)
    said, thought = _text(content, "content"), _text(reasoning, "reasoning")
    if not said:
        raise ConfigError("The answer is empty. Write how it should have been.", field="content")
    if (said, thought) in {(m.content.strip(), m.reasoning.strip()) for m in (message, original)}:
        raise ConfigError("This is the answer as it is. Change something first.", field="content")
    Judgement.objects.filter(user=user, kind=JudgementKind.EDIT, other=original).delete()
    made = Message.objects.create(
        conversation=message.conversation, parent=message.parent, role="assistant", content=said, reasoning=thought,
        edit_of=original, column=original.column,
    )  # fmt: skip
    made.refresh_from_db()
    _judge(
        JudgementKind.EDIT, user, made, original, value=1, chosen=with_thinking(made), rejected=with_thinking(original)
    )
    return made


@transaction.atomic
def message_prefer(
    *, message: Message, user: User, over: Sequence[Message], tie: bool = False, comment: str = ""
) -> list[Judgement]:
    """Says that an answer is better than each of `over`, or that all of them are alike. Replaces what was said of them.

    Raises ConfigError when they do not answer the same message, IllegalTransition while one is being written.
    """
    _check_owner(message, user)
    answers = [message, *over]
    if not over or len({m.pk for m in answers}) != len(answers):
        raise ConfigError("A choice is between two answers or more. Name the others.", field="over")
    if {m.parent_id for m in answers} != {message.parent_id} or {m.role for m in answers} != {"assistant"}:
        raise ConfigError("Only answers to the same message can be compared.", field="over")
    for one in answers:
        _check_ended(one)
    said = _comment(comment)
    _one_at_a_time(message)
    there = [m.pk for m in answers]
    Judgement.objects.filter(Q(message__in=there) & Q(other__in=there), user=user, kind=JudgementKind.CHOICE).delete()
    pairs = [(a, b) for i, a in enumerate(answers) for b in answers[i + 1 :]] if tie else [(message, m) for m in over]
    return [
        _judge(
            JudgementKind.CHOICE, user, one, other, value=0 if tie else 1, comment=said, chosen=with_thinking(one),
            rejected=with_thinking(other),
        )
        for one, other in pairs
    ]  # fmt: skip


@transaction.atomic
def judgement_review(*, project: Project, user: User, ids: Sequence[int], to: str, reason: str = "") -> int:
    """Accepts judgements, leaves them out, or opens them again; says how many it moved. Raises ConfigError.

    One that another editor has moved there already is no error.
    """
    if to not in ReviewState.values:
        raise ConfigError(f"A review ends in one of {', '.join(ReviewState.values)}.", field="state")
    if not ids or len(ids) > MAX_REVIEWED:
        raise ConfigError(f"Name 1 to {MAX_REVIEWED} judgements; these are {len(ids)}.", field="judgements")
    found = Judgement.objects.filter(project=project, pk__in=ids).exclude(value=0)
    known = list(found.values_list("pk", flat=True))
    if missing := sorted(set(ids) - set(known)):
        raise ConfigError(f"There is no judgement {missing[0]} to review in this project.", field="judgements")
    why = refuse_unstorable(reason, "reason").strip()[:MAX_COMMENT]
    moved = [pk for pk in known if judgement_transition(judgement_id=pk, to=to, reason=why, user=user)]
    if moved:
        audit(
            user=user, project=project, action="judgement.review", target=f"project:{project.pk}",
            detail={"to": to, "judgements": moved, "reason": why},
        )  # fmt: skip
    return len(moved)


def with_thinking(message: Message) -> str:
    """An answer as the model wrote it: what it thought between its marks, then what it said."""
    return f"{OPEN}{message.reasoning}{CLOSE}{message.content}" if message.reasoning else message.content


def _judge(kind: str, user: User, message: Message, other: Message | None, **values: Any) -> Judgement:
    made = Judgement.objects.create(
        project=message.conversation.project, user=user, kind=kind, message=message, other=other,
        deployment=message.deployment, other_deployment=other.deployment if other is not None else None,
        prompt=turns_before(message), **values,
    )  # fmt: skip
    made.refresh_from_db()
    _tell(message)
    return made


def _tell(message: Message) -> None:
    """Has the pages of the conversation show its thread again."""
    pk = message.conversation_id
    Conversation.objects.filter(pk=pk).update(updated_at=Now())
    transaction.on_commit(lambda: publish(f"chat.{pk}", "conversation", conversation=pk))


def _one_at_a_time(message: Message) -> None:
    """Until the end of the transaction nobody else judges in this conversation, so that one judgement takes another's place."""
    Conversation.objects.select_for_update().get(pk=message.conversation_id)


def _check_owner(message: Message, user: User) -> None:
    assert message.conversation.user_id == user.pk, "doors let only the owner through"


def _check_ended(message: Message) -> None:
    if message.role != "assistant":
        raise ConfigError("Answers are judged, not what you said.", field="message")
    if message.state not in GENERATION_ENDS:
        raise IllegalTransition("Answer", message.pk, message.state, "judged")
    if not with_thinking(message).strip():
        raise ConfigError("Nothing was answered here that could be judged.", field="message")


def _text(value: str, field: str) -> str:
    if len(value) > MAX_CHARS:
        raise ConfigError(f"The text has {len(value)} characters; at most {MAX_CHARS} fit. Shorten it.", field=field)
    return refuse_unstorable(value, field).strip()


def _comment(value: str) -> str:
    if len(value) > MAX_COMMENT:
        raise ConfigError(f"The comment has {len(value)} characters; at most {MAX_COMMENT} fit.", field="comment")
    return refuse_unstorable(value, "comment").strip()
