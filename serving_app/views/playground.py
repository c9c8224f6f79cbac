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
from serving_app.context import context_of
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
        "unmet": _unmet(request, project),
        "may_edit": role_in(request.user, project) in {Role.EDITOR, Role.OWNER},
    }
    return render(request, "serving_app/playground/new.html", context, status=422 if request.method == "POST" else 200)


@require_safe
def conversation(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """One conversation."""
    found = conversation_of(request, conversation_id)
    turns = _turns(request, found)
    context = {
        **_sidebar(request, found.project),
        **thread_context(request, found, turns),
        "form": ConversationForm(project=found.project, conversation=found),
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
        "snippets": _snippets(request, found, turns),
    }


def _snippets(request: HttpRequest, found: Conversation, turns: list[Turn]) -> list[tuple[str, str]]:
    """The branch up to the last question, as code."""
    there = found.deployment is not None and found.deployment.deleted_at is None
    return chat_snippets(
        base_url=request.build_absolute_uri("/").rstrip("/"),
        model=found.deployment.name if there and found.deployment else "MODEL",
        messages=_as_sent(found, turns),
        parameters=found.parameters,
    )


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
        found = ready.filter(pk=_number(asked)).first() if asked else ready.first()
    return {"deployment": found.pk if found else None}


def _unmet(request: HttpRequest, project: Project) -> str:
    """Why the model that a link names cannot be asked here; empty when it can."""
    asked = request.GET.get("deployment", "")
    if not asked or request.method == "POST":
        return ""
    found = selectors.deployment_list(user=request.user).filter(pk=_number(asked)).first()
    if found is None:
        return "The model of this link does not exist any more, or is not yours to see. Choose another one."
    if found.project_id != project.pk:
        return f"“{found.name}” belongs to the project “{found.project.name}”. Switch to it, or choose another model here."
    if found.state in ANSWERING:
        return ""
    return f"“{found.name}” is {found.get_state_display().lower()} and does not answer now. Choose another model."


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 18 else 0


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
    )
    services.message_send(conversation=made, user=signed_in(request), content=said)
    return redirect("conversation", conversation_id=made.pk)


def _as_sent(found: Conversation, turns: list[Turn]) -> list[dict[str, str]]:
    system = [{"role": "system", "content": found.system_prompt}] if found.system_prompt else []
    said = context_of([turn.message for turn in turns])
    while said and said[-1]["role"] != "user":
        said.pop()
    return [*system, *(said or [{"role": "user", "content": "What is 17 + 25?"}])]
