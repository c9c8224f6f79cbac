"""What a person does in a conversation: send, stop, answer again, edit and branch, judge, change settings, rename, delete.

Each is a POST. The chat page sends them in the background and asks for JSON; without script they lead back to the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from model_core.errors import ConfigError, ModelCoreError
from r1platform.access import signed_in
from r1platform.lib.ids import id_of, ids_of
from r1platform.lib.transitions import IllegalTransition
from serving_app import services
from serving_app.forms import ConversationForm
from serving_app.models import Conversation, Message
from serving_app.states import GENERATION_ENDS
from serving_app.views.playground import conversation_of

MAX_CHARS = 100_000


@require_POST
def conversation_act(request: HttpRequest, conversation_id: int, verb: str) -> HttpResponse:
    """Does `verb`; what is wrong comes back as one sentence, and the branch that was begun as Content-Location."""
    found = conversation_of(request, conversation_id)
    if verb not in _VERBS:
        raise Http404(f"A conversation cannot “{verb}”.")
    wants_json = "application/json" in request.headers.get("Accept", "")
    try:
        newest = _VERBS[verb](request, found)
    except IllegalTransition as error:
        return _wrong(request, found, services.why_not(error), wants_json, status=409)
    except ModelCoreError as error:
        return _wrong(request, found, error.message, wants_json)
    if wants_json:
        return JsonResponse({"ok": True}, headers=_where(found, newest))
    return redirect("playground") if verb == "delete" else redirect("conversation", conversation_id=found.pk)


def _where(found: Conversation, newest: Message | None) -> dict[str, str]:
    if newest is None:
        return {}
    return {"Content-Location": f"{reverse('conversation', args=[found.pk])}?at={newest.pk}"}


def _wrong(
    request: HttpRequest, found: Conversation, sentence: str, wants_json: bool, *, status: int = 400
) -> HttpResponse:
    if wants_json:
        body = {"type": "about:blank", "title": "Nothing was done", "status": status, "detail": sentence}
        return JsonResponse(body, status=status, content_type="application/problem+json")
    messages.error(request, sentence)
    return redirect("conversation", conversation_id=found.pk)


def _content(request: HttpRequest) -> str:
    content = request.POST.get("content", "").strip()
    if not content:
        raise ModelCoreError("The message is empty. Write something first.", field="content")
    if len(content) > MAX_CHARS:
        raise ModelCoreError(
            f"The message has {len(content)} characters; at most {MAX_CHARS} fit. Shorten it.", field="content"
        )
    return content


def _message(request: HttpRequest, found: Conversation, name: str = "message") -> Message:
    given = request.POST.get(name, "")
    return get_object_or_404(found.messages, pk=id_of(given))


def _send(request: HttpRequest, found: Conversation) -> Message:
    """Goes on after `parent`, the last message that the page shows."""
    parent = _message(request, found, "parent") if request.POST.get("parent") else None
    sent = services.message_send(
        conversation=found, user=signed_in(request), content=_content(request), parent=parent
    )
    return sent[1]


def _stop(request: HttpRequest, found: Conversation) -> None:
    """Ends the answers that are named; of several one that has ended meanwhile is no error."""
    named = ids_of(request.POST.getlist("message"))
    answers = list(found.messages.filter(pk__in=named))
    if not answers:
        raise Http404("This conversation has no such message.")
    if len(answers) > 1:
        answers = [one for one in answers if one.state not in GENERATION_ENDS]
    for one in answers:
        services.message_stop(message=one, user=signed_in(request))


def _regenerate(request: HttpRequest, found: Conversation) -> Message:
    return services.message_regenerate(message=_message(request, found), user=signed_in(request))


def _continue(request: HttpRequest, found: Conversation) -> Message:
    """Goes on where the answer was cut, or at one of its tokens with another."""
    places: dict[str, Any] = {name: _number(request, name) for name in ("token", "choice") if request.POST.get(name)}
    return services.message_continue(message=_message(request, found), user=signed_in(request), **places)


def _number(request: HttpRequest, name: str) -> int:
    given = request.POST.get(name, "")
    if not (given.isdecimal() and len(given) < 10):
        raise ConfigError(f"“{name}” is a number, counted from 0.", field=name)
    return int(given)


def _edit(request: HttpRequest, found: Conversation) -> Message:
    return services.message_edit(message=_message(request, found), user=signed_in(request), content=_content(request))[1]


def _rate(request: HttpRequest, found: Conversation) -> None:
    services.message_rate(
        message=_message(request, found),
        user=signed_in(request),
        value=_rating(request),
        reasons=request.POST.getlist("reasons"),
        comment=request.POST.get("comment", ""),
    )


def _rating(request: HttpRequest) -> int:
    try:
        return {"1": 1, "0": 0, "-1": -1}[request.POST.get("value", "")]
    except KeyError:
        raise ConfigError("A rating is 1 for good, -1 for bad, or 0 to take it back.", field="value") from None


def _rewrite(request: HttpRequest, found: Conversation) -> Message:
    return services.message_rewrite(
        message=_message(request, found),
        user=signed_in(request),
        content=_content(request),
        reasoning=request.POST.get("reasoning", ""),
    )


def _prefer(request: HttpRequest, found: Conversation) -> Message:
    """The answer that the button stands at is better than the others; `tie` says that all are alike."""
    message = _message(request, found)
    others = [pk for pk in ids_of(request.POST.getlist("over")) if pk != message.pk]
    services.message_prefer(
        message=message,
        user=signed_in(request),
        over=list(found.messages.filter(pk__in=others)),
        tie=bool(request.POST.get("tie")),
    )
    return message


def _valid(request: HttpRequest, found: Conversation) -> ConversationForm:
    """The form of the dialog. Raises ModelCoreError with the first thing that is wrong."""
    form = ConversationForm(request.POST, project=found.project)
    if not form.is_valid():
        field, errors = next(iter(form.errors.items()))
        sentence = str(errors[0])
        raise ModelCoreError(
            f"{form.fields[field].label or field}: {sentence}" if field in form.fields else sentence, field=field
        )
    return form


def _preset(request: HttpRequest, found: Conversation) -> None:
    """Keeps what the dialog says under a name."""
    form = _valid(request, found)
    made = services.preset_create(
        project=found.project,
        user=signed_in(request),
        name=request.POST.get("preset_name", ""),
        system_prompt=form.cleaned_data["system_prompt"],
        parameters=form.parameters(found.parameters),
        is_shared=bool(request.POST.get("is_shared")),
    )
    messages.success(request, f"The preset “{made.name}” is kept; new chats offer it.")


def _share(request: HttpRequest, found: Conversation) -> None:
    leaf = _message(request, found, "at") if request.POST.get("at") else None
    services.conversation_share(conversation=found, user=signed_in(request), leaf=leaf)
    messages.success(request, "The link is made. Copy it from “Share”.")


def _unshare(request: HttpRequest, found: Conversation) -> None:
    share = get_object_or_404(found.shares, token=request.POST.get("token", ""))
    services.conversation_unshare(share=share, user=signed_in(request))
    messages.success(request, "The link is revoked; who opens it finds nothing.")


def _settings(request: HttpRequest, found: Conversation) -> None:
    form = _valid(request, found)
    services.conversation_update(
        conversation=found,
        user=signed_in(request),
        deployment=form.cleaned_data["deployment"],
        beside=form.others(),
        system_prompt=form.cleaned_data["system_prompt"],
        parameters=form.parameters(found.parameters),
    )


def _rename(request: HttpRequest, found: Conversation) -> None:
    services.conversation_update(
        conversation=found, user=signed_in(request), title=request.POST.get("title", "").strip()[:160]
    )


def _delete(request: HttpRequest, found: Conversation) -> None:
    services.conversation_delete(conversation=found, user=signed_in(request))


_VERBS: dict[str, Callable[[HttpRequest, Conversation], Message | None]] = {
    "send": _send,
    "stop": _stop,
    "regenerate": _regenerate,
    "continue": _continue,
    "edit": _edit,
    "rate": _rate,
    "rewrite": _rewrite,
    "prefer": _prefer,
    "settings": _settings,
    "preset": _preset,
    "share": _share,
    "unshare": _unshare,
    "rename": _rename,
    "delete": _delete,
}
