"""Models of others: what lies under R1_MODELS, a look at one with its chat template, and those that were approved."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import CheckpointError, ModelCoreError
from model_core.published import MODELS_FIELDS, Refused
from model_core.published.template import rendered
from model_core.serving.engines import ENGINES
from r1platform.access import current_project, require_role, role_in, signed_in
from r1platform.models import Role
from serving_app import selectors, services
from serving_app.forms import as_json
from serving_app.model_directories import looked
from serving_app.models import ImportedModel
from serving_app.observed import serving_revisions
from serving_app.services.imports import engines_refusing
from serving_app.states import ImportState

PER_PAGE = 50
FIELDS = dict(zip(MODELS_FIELDS, ("Files", "Configuration", "Tokenizer", "Weights", "Chat template"), strict=True))


@require_safe
def imported_models(request: HttpRequest) -> HttpResponse:
    """The imports of the project; for editors also what else lies there, importable or why not."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    may_edit = role_in(request.user, project) in {Role.EDITOR, Role.OWNER}
    page = Paginator(selectors.import_list(user=request.user, project=project), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "page": page,
        "found": [one for one in selectors.models_found(project=project) if one.imported is None] if may_edit else [],
        "may_edit": may_edit,
        "is_moving": any(one.state == ImportState.CHECKING for one in page),
        "labels": FIELDS,
    }
    return render(request, "serving_app/imports/list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def model_found(request: HttpRequest, name: str) -> HttpResponse:
    """Facts, files, the chat template as text and a conversation written by it; a POST approves that template and imports."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    require_role(request.user, project, Role.EDITOR)
    try:
        found = looked(name)
    except CheckpointError as error:
        raise Http404(error.message) from None
    wrong = list(found.refusals)
    if request.method == "POST":
        try:
            made = services.import_create(
                project=project, user=signed_in(request), name=name,
                chat_template_sha256=request.POST.get("chat_template_sha256", ""),
            )  # fmt: skip
        except ModelCoreError as error:
            if not wrong:
                wrong.append(Refused(error.field, error.message))
        else:
            messages.success(request, f"“{made.name}” is approved. It can be deployed once its files are hashed.")
            return redirect("imported-model", made.pk)
    example = ""
    try:
        example = rendered(found.template, found.special) if found.template else ""
    except CheckpointError as error:
        wrong.append(Refused(error.field, error.message))
    context = {
        "project": project, "name": name, "found": found, "config": as_json(found.config), "example": example,
        "wrong": [(FIELDS.get(one.field, "Import"), one.message) for one in wrong],
        "may_import": not wrong, "engines": _engines(engines_refusing(found)),
    }  # fmt: skip
    return render(request, "serving_app/imports/found.html", context, status=422 if request.method == "POST" else 200)


@require_safe
def imported_model(request: HttpRequest, import_id: int) -> HttpResponse:
    """One import: how far its hashing is, what was approved by whom, what serves it."""
    imported = _import_of(request, import_id)
    context = {
        "imported": imported,
        "is_moving": imported.state == ImportState.CHECKING,
        "is_ready": imported.state == ImportState.READY,
        "engines": _engines(imported.refused_by),
        "revisions": serving_revisions(imported_model=imported).select_related("deployment").order_by("-id"),
        "may_edit": role_in(request.user, imported.project) in {Role.EDITOR, Role.OWNER},
    }
    return render(request, "serving_app/imports/detail.html", context)


@require_POST
def import_remove(request: HttpRequest, import_id: int) -> HttpResponse:
    """Takes it off the list; the files stay."""
    imported = _import_of(request, import_id)
    require_role(request.user, imported.project, Role.EDITOR)
    try:
        services.import_remove(imported=imported, user=signed_in(request))
    except ModelCoreError as error:
        messages.error(request, error.message)
        return redirect("imported-model", imported.pk)
    messages.success(request, f"“{imported.name}” is removed from the imports. Its files are still where they were.")
    return redirect("imported-models")


def _import_of(request: HttpRequest, import_id: int) -> ImportedModel:
    return get_object_or_404(selectors.import_list(user=request.user), pk=import_id)


def _engines(refused_by: dict[str, Any]) -> list[tuple[str, str]]:
    """Title of each engine and why it cannot serve the model, "" when it can."""
    return [(str(engine.title), refused_by.get(name, "")) for name, engine in ENGINES.items() if name != "fake"]
