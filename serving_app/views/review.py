"""From what people said to data: the review queue, datasets made of it, and who is preferred to whom."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import require_role, signed_in
from r1platform.lib.ids import id_of, ids_of
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from r1platform.templatetags.r1_parts import may_edit
from serving_app import selectors, services
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS
from serving_app.judgement_forms import JudgedDatasetForm, QueueForm
from serving_app.observed import current_revision
from serving_app.states import ReviewState
from serving_app.views.reading import read_judgement
from training_app.models import DatasetVersion
from training_app.services import learnt_from

PER_PAGE = 20
TRAINS = {
    "pairs": (("preference", "Train with preference"), ("reward_model", "Only a reward model")),
    "answers": (("fine_tuning", "Fine-tune on it"),),
}
"""Pipeline templates for each kind of rows, and what they are called here."""
NUM_VERSIONS = 50


@require_safe
@project_page
def review_queue(request: HttpRequest, project: Project) -> HttpResponse:
    """Judgements to accept or leave out; the filters are in the address."""
    require_role(request.user, project, Role.EDITOR)
    form = QueueForm(request.GET, project=project)
    found = form.narrowed(selectors.judgement_list(user=request.user, project=project))
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        **_common(request, project),
        "form": form,
        "page": page,
        "rows": [read_judgement(one) for one in page],
        "state": form.cleaned_data.get("state") or ReviewState.PENDING if form.is_valid() else ReviewState.PENDING,
    }
    return render(request, "serving_app/judgements/queue.html", context)


@require_POST
@project_page
def review_act(request: HttpRequest, project: Project) -> HttpResponse:
    """Moves the judgements that are ticked, and goes back to the queue as it was filtered."""
    require_role(request.user, project, Role.EDITOR)
    ids = ids_of(request.POST.getlist("judgement"))
    to = request.POST.get("to", "")
    try:
        moved = services.judgement_review(
            project=project, user=signed_in(request), ids=ids, to=to, reason=request.POST.get("reason", "")
        )
    except ModelCoreError as error:
        messages.error(request, error.message if ids else "Tick what you mean first.")
    else:
        messages.success(request, f"{ReviewState(to).label}: {moved}.")
    back = request.POST.get("back", "")
    is_ours = url_has_allowed_host_and_scheme(back, allowed_hosts=None) and back.startswith(reverse("review-queue"))
    return redirect(back if is_ours else "review-queue")


@require_http_methods(["GET", "HEAD", "POST"])
@project_page
def judged_datasets(request: HttpRequest, project: Project) -> HttpResponse:
    """What accepted judgements amount to, the form that makes a version of them, and what was made."""
    require_role(request.user, project, Role.EDITOR)
    form = JudgedDatasetForm(request.POST or None, project=project, initial=_initial(request))
    if request.method == "POST" and form.is_valid() and (version := _make(request, form, project)):
        messages.success(request, f"Preparing {version}. As soon as it is ready, train on it from here.")
        return redirect("judged-datasets")
    start = selectors.judged_checkpoint(user=request.user, project=project)
    versions = selectors.judged_versions(user=request.user, project=project)[:NUM_VERSIONS]
    context = {
        **_common(request, project),
        "form": form,
        "amounts": [(name, services.accepted_rows(project, name)) for name in (PAIRS, DEMONSTRATIONS)],
        "versions": [(version, _next_steps(version, start.pk if start else None)) for version in versions],
        "start": start,
    }
    return render(request, "serving_app/judgements/datasets.html", context, status=422 if form.is_bound else 200)


@require_safe
@project_page
def win_rates(request: HttpRequest, project: Project) -> HttpResponse:
    """How often each model was preferred to each other, side by side."""
    common, pairs = _common(request, project), selectors.win_rates(user=request.user, project=project)
    context = {**common, "pairs": [(pair, _promotion(pair) if common["may_edit"] else "") for pair in pairs]}
    return render(request, "serving_app/judgements/win_rates.html", context)


def _promotion(pair: selectors.Pair) -> str:
    """Address of the form in which what is preferred takes the other's place; empty while that cannot be."""
    if pair.ranked is None or any(one.deleted_at is not None for one in pair.ranked):
        return ""
    better, worse = pair.ranked
    now = current_revision(better)
    served = now.checkpoint_id if now else None
    return f"{reverse('deployment-revise', args=[worse.pk])}?checkpoint={served}" if served else ""


def _common(request: HttpRequest, project: Project) -> dict[str, Any]:
    is_editor = may_edit(request.user, project)
    counts = selectors.judgement_counts(user=request.user, project=project) if is_editor else {}
    return {"project": project, "may_edit": is_editor, "counts": counts}


def _initial(request: HttpRequest) -> dict[str, Any]:
    return {"dataset": id_of(request.GET.get("dataset", "")), "form": request.GET.get("form", PAIRS)}


def _make(request: HttpRequest, form: JudgedDatasetForm, project: Project) -> DatasetVersion | None:
    try:
        return services.judged_version_create(project=project, user=signed_in(request), **form.cleaned_data)
    except ModelCoreError as error:
        form.add_error(error.field if error.field in form.fields else None, error.message)
        return None


def _next_steps(version: DatasetVersion, start: int | None) -> list[tuple[str, str]]:
    """Words and address of what a version can train, each the form of a pipeline that is filled in."""
    where = f"&starts_from={start}" if start is not None else ""
    form = f"{reverse('pipeline-new')}?dataset_version={version.pk}{where}&template="
    return [(words, form + template) for template, words in TRAINS.get(learnt_from(version), ())]
