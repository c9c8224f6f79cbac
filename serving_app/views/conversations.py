"""What a person does in a conversation: send, stop, answer again, edit and branch, change settings, rename, delete.

Each is a POST. The chat page sends them in the background and asks for JSON; without script they lead back to the page.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from model_core.errors import ModelCoreError
from r1platform.access import signed_in
from r1platform.lib.transitions import IllegalTransition
from serving_app import services
from serving_app.forms import ConversationForm
from serving_app.models import Conversation, Message
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
    return get_object_or_404(found.messages, pk=int(given) if given.isdecimal() and len(given) < 18 else 0)


def _send(request: HttpRequest, found: Conversation) -> Message:
    """Goes on after `parent`, the last message that the page shows."""
    parent = _message(request, found, "parent") if request.POST.get("parent") else None
    sent = services.message_send(
        conversation=found, user=signed_in(request), content=_content(request), parent=parent
    )
    return sent[1]


def _stop(request: HttpRequest, found: Conversation) -> None:
    services.message_stop(message=_message(request, found), user=signed_in(request))


def _regenerate(request: HttpRequest, found: Conversation) -> Message:
    return services.message_regenerate(message=_message(request, found), user=signed_in(request))


def _edit(request: HttpRequest, found: Conversation) -> Message:
    return services.message_edit(message=_message(request, found), user=signed_in(request), content=_content(request))[1]


def _settings(request: HttpRequest, found: Conversation) -> None:
    form = ConversationForm(request.POST, project=found.project)
    if not form.is_valid():
        field, errors = next(iter(form.errors.items()))
        sentence = str(errors[0])
        raise ModelCoreError(
            f"{form.fields[field].label or field}: {sentence}" if field in form.fields else sentence, field=field
        )
    services.conversation_update(
        conversation=found,
        user=signed_in(request),
        deployment=form.cleaned_data["deployment"],
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
    "edit": _edit,
    "settings": _settings,
    "rename": _rename,
    "delete": _delete,
}
