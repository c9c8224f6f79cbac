"""The playground's pages: conversations, a new chat, one conversation, and its thread alone for the live page."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import current_project, for_user, require_role, signed_in
from r1platform.lib.ids import id_of, ids_of
from r1platform.models import Project, Role
from r1platform.templatetags.r1_parts import may_edit
from serving_app import selectors, services
from serving_app.context import context_of
from serving_app.forms import ConversationForm
from serving_app.gateway.body import ChatParameters
from serving_app.models import Conversation, Deployment, Preset
from serving_app.states import ANSWERING
from serving_app.views.snippets import chat_snippets
from serving_app.views.thread import Turn, thread_of
from training_app.models import Checkpoint

PER_PAGE = 40


@require_http_methods(["GET", "HEAD", "POST"])
def playground(request: HttpRequest) -> HttpResponse:
    """Conversations and a new chat; a POST makes the conversation with its first message and goes to it.

    A link may fill in models and text (`?deployment=`, `?beside=`, `?checkpoint=`, `?text=`), it never sends.
    """
    project = current_project(request)
    if project is None:
        return redirect("overview")
    wanted = _wanted_checkpoint(request, project)
    presets = list(selectors.preset_list(user=request.user, project=project))
    form = ConversationForm(
        request.POST or None, project=project, initial=_initial(request, project, wanted) | _preset(request, presets)
    )
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
        "wanted": wanted,
        "presets": presets,
        "unmet": _unmet(request, project),
    }
    return render(request, "serving_app/playground/new.html", context, status=422 if request.method == "POST" else 200)


@require_POST
def checkpoint_chat(request: HttpRequest, checkpoint_id: int) -> HttpResponse:
    """Begins a chat with a step of a run, which is deployed for it when it is not."""
    checkpoint = get_object_or_404(for_user(Checkpoint.objects.all(), request.user, path="run__project"), pk=checkpoint_id)
    project = checkpoint.run.project
    require_role(request.user, project, Role.EDITOR)
    try:
        made = services.checkpoint_chat(
            project=project, user=signed_in(request), checkpoint=checkpoint, content=request.POST.get("content", "")
        )
    except ModelCoreError as problem:
        messages.error(request, problem.message)
        return redirect(f"{reverse('playground')}?checkpoint={checkpoint.pk}")
    return redirect("conversation", conversation_id=made.pk)


@require_safe
def conversation(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """One conversation."""
    found = conversation_of(request, conversation_id)
    turns = turns_of(request, found)
    context = {
        **_sidebar(request, found.project),
        **thread_context(request, found, turns),
        "form": ConversationForm(project=found.project, conversation=found),
        "answers": bool(
            found.deployment and found.deployment.deleted_at is None and found.deployment.state in ANSWERING
        ),
        "shares": found.shares.filter(revoked_at=None),
        "beside": [model for model in services.compared(found)[1:] if model is not None],
    }
    return render(request, "serving_app/playground/conversation.html", context)


@require_safe
def thread(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """The turns alone, as the server has them now."""
    found = conversation_of(request, conversation_id)
    return render(
        request, "serving_app/playground/_thread.html", thread_context(request, found, turns_of(request, found))
    )


@require_safe
def message_tokens(request: HttpRequest, conversation_id: int, message_id: int) -> HttpResponse:
    """The tokens of an answer with their probabilities, for its fold."""
    found = conversation_of(request, conversation_id)
    message = get_object_or_404(found.messages.exclude(tokens=None), pk=message_id)
    context = {"conversation": found, "message": message, "tokens": selectors.message_tokens(message)}
    return render(request, "serving_app/playground/_tokens.html", context)


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
        parameters=ChatParameters.model_validate(found.parameters).sampling(),
    )


def turns_of(request: HttpRequest, found: Conversation) -> list[Turn]:
    """The branch that the address names by one of its messages, else the newest."""
    at = request.GET.get("at", "")
    judged = selectors.own_judgements(conversation=found)
    messages = selectors.conversation_messages(conversation=found)
    return thread_of(messages, at=id_of(at), judged=judged)


def _sidebar(request: HttpRequest, project: Project) -> dict[str, Any]:
    text = request.GET.get("q", "").strip()
    found = selectors.conversation_list(user=request.user, project=project, text=text)
    page = Paginator(found.order_by("-updated_at"), PER_PAGE).get_page(request.GET.get("page"))
    is_editor = may_edit(request.user, project)
    return {"conversations": page, "page": page, "q": text, "project": project, "may_edit": is_editor}


def _answering(request: HttpRequest, project: Project) -> QuerySet[Deployment]:
    return selectors.deployment_list(user=request.user, project=project).filter(state__in=ANSWERING)


def _wanted_checkpoint(request: HttpRequest, project: Project) -> dict[str, Any] | None:
    """The checkpoint that a link names, and how a chat with it would begin; None when it is not the user's to see."""
    wanted = id_of(request.GET.get("checkpoint", ""))
    if not wanted:
        return None
    found = selectors.checkpoints_deployable(user=request.user, project=project).filter(pk=wanted).first()
    if found is None:
        return {"checkpoint": None}
    return {"checkpoint": found, "serving": services.serving_of(project=project, checkpoint=found)}


def _initial(request: HttpRequest, project: Project, wanted: dict[str, Any] | None) -> dict[str, Any]:
    ready = _answering(request, project)
    if wanted is not None:
        serving = wanted.get("serving")
        found = ready.filter(pk=serving.pk).first() if serving else None
    else:
        asked = request.GET.get("deployment", "")
        found = ready.filter(pk=id_of(asked) or 0).first() if asked else ready.first()
    beside = ids_of(request.GET.getlist("beside")[:3])
    others = list(ready.filter(pk__in=beside).exclude(pk=found.pk)) if found and beside else []
    return {"deployment": found.pk if found else None, "beside": [one.pk for one in others]}


def _preset(request: HttpRequest, presets: list[Preset]) -> dict[str, Any]:
    """What the preset that the address names fills in."""
    wanted = id_of(request.GET.get("preset", ""))
    found = next((preset for preset in presets if preset.pk == wanted), None)
    return {"system_prompt": found.system_prompt, **found.parameters, "preset": found.pk} if found else {}


def _unmet(request: HttpRequest, project: Project) -> str:
    """Why the model that a link names cannot be asked here; empty when it can."""
    asked = request.GET.get("deployment", "")
    if not asked or request.method == "POST":
        return ""
    found = selectors.deployment_list(user=request.user).filter(pk=id_of(asked) or 0).first()
    if found is None:
        return "The model of this link does not exist any more, or is not yours to see. Choose another one."
    if found.project_id != project.pk:
        return f"“{found.name}” belongs to the project “{found.project.name}”. Switch to it, or choose another model here."
    if found.state in ANSWERING:
        return ""
    return f"“{found.name}” is {found.get_state_display().lower()} and does not answer now. Choose another model."


@transaction.atomic
def _begin(request: HttpRequest, project: Project, form: ConversationForm, said: str) -> HttpResponse:
    """The conversation with its first message, or neither."""
    values = form.cleaned_data
    made = services.conversation_create(
        project=project,
        user=signed_in(request),
        deployment=values["deployment"],
        beside=form.others(),
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
