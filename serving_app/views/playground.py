"""The playground's pages: conversations, a new chat, one conversation, and its thread alone for the live page."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import current_project, role_in, signed_in
from r1platform.models import Project, Role
from serving_app import selectors, services
from serving_app.forms import ConversationForm
from serving_app.models import Conversation, Deployment
from serving_app.states import DeploymentState
from serving_app.views.snippets import chat_snippets
from serving_app.views.thread import Turn, thread_of

PER_PAGE = 40
ANSWERING = frozenset({DeploymentState.READY, DeploymentState.DEGRADED})


@require_http_methods(["GET", "HEAD", "POST"])
def playground(request: HttpRequest) -> HttpResponse:
    """Conversations and a new chat; a POST makes the conversation with its first message and goes to it.

    A link may fill in model and text (`?deployment=`, `?checkpoint=`, `?text=`), it never sends.
    """
    project = current_project(request)
    if project is None:
        return redirect("overview")
    form = ConversationForm(request.POST or None, project=project, initial=_initial(request, project))
    said = request.POST.get("content", "").strip()
    error = ""
    if request.method == "POST" and form.is_valid():
        if not said:
            error = "Write something to the model first."
        else:
            try:
                return _begin(request, project, form, said)
            except ModelCoreError as problem:
                error = problem.message
    context = {
        **_sidebar(request, project),
        "form": form,
        "error": error,
        "text": said or request.GET.get("text", "")[:8000],
        "deployments": _answering(request, project),
        "wanted_checkpoint": _wanted_checkpoint(request),
        "may_edit": role_in(request.user, project) in {Role.EDITOR, Role.OWNER},
    }
    return render(request, "serving_app/playground/new.html", context, status=422 if request.method == "POST" else 200)


@require_safe
def conversation(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """One conversation."""
    found = conversation_of(request, conversation_id)
    turns = _turns(request, found)
    base_url = request.build_absolute_uri("/").rstrip("/")
    context = {
        **_sidebar(request, found.project),
        **thread_context(request, found, turns),
        "form": ConversationForm(project=found.project, conversation=found),
        "snippets": chat_snippets(
            base_url=base_url,
            model=found.deployment.name if found.deployment else "MODEL",
            messages=_as_sent(found, turns),
            parameters=found.parameters,
        ),
        "answers": bool(
            found.deployment and found.deployment.deleted_at is None and found.deployment.state in ANSWERING
        ),
    }
    return render(request, "serving_app/playground/conversation.html", context)


@require_safe
def thread(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """The turns alone, as the server has them now."""
    found = conversation_of(request, conversation_id)
    return render(
        request, "serving_app/playground/_thread.html", thread_context(request, found, _turns(request, found))
    )


def conversation_of(request: HttpRequest, conversation_id: int) -> Conversation:
    """The user's own conversation in a project they are still a member of, else 404."""
    return get_object_or_404(selectors.conversation_list(user=request.user), pk=conversation_id)


def thread_context(request: HttpRequest, found: Conversation, turns: list[Turn]) -> dict[str, Any]:
    """What `_thread.html` needs."""
    return {
        "conversation": found,
        "turns": turns,
        "last": turns[-1] if turns else None,
        "at": request.GET.get("at", ""),
    }


def _turns(request: HttpRequest, found: Conversation) -> list[Turn]:
    at = request.GET.get("at", "")
    return thread_of(found.messages.all(), at=int(at) if at.isdecimal() and len(at) < 18 else None)


def _sidebar(request: HttpRequest, project: Project) -> dict[str, Any]:
    text = request.GET.get("q", "").strip()
    found = selectors.conversation_list(user=request.user, project=project, text=text)
    page = Paginator(found.order_by("-updated_at"), PER_PAGE).get_page(request.GET.get("page"))
    return {"conversations": page, "page": page, "q": text, "project": project}


def _answering(request: HttpRequest, project: Project) -> QuerySet[Deployment]:
    return selectors.deployment_list(user=request.user, project=project).filter(state__in=ANSWERING)


def _wanted_checkpoint(request: HttpRequest) -> str:
    wanted = request.GET.get("checkpoint", "")
    return wanted if wanted.isdecimal() and len(wanted) < 18 else ""


def _initial(request: HttpRequest, project: Project) -> dict[str, Any]:
    ready = _answering(request, project)
    if wanted := _wanted_checkpoint(request):
        found = ready.filter(revisions__checkpoint=int(wanted)).first()
    else:
        asked = request.GET.get("deployment", "")
        found = (
            ready.filter(pk=int(asked)).first() if asked.isdecimal() and len(asked) < 18 else None
        ) or ready.first()
    return {"deployment": found.pk if found else None}


@transaction.atomic
def _begin(request: HttpRequest, project: Project, form: ConversationForm, said: str) -> HttpResponse:
    """The conversation with its first message, or neither."""
    values = form.cleaned_data
    made = services.conversation_create(
        project=project,
        user=signed_in(request),
        deployment=values["deployment"],
        system_prompt=values["system_prompt"],
        parameters=form.parameters(),
        title=said.splitlines()[0][:80],
    )
    services.message_send(conversation=made, user=signed_in(request), content=said)
    return redirect("conversation", conversation_id=made.pk)


def _as_sent(found: Conversation, turns: list[Turn]) -> list[dict[str, str]]:
    system = [{"role": "system", "content": found.system_prompt}] if found.system_prompt else []
    said = [{"role": turn.message.role, "content": turn.message.content} for turn in turns if turn.message.content]
    return [*system, *said] or [{"role": "user", "content": "What is 17 + 25?"}]
