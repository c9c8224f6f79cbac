"""Datasets: the list, and one dataset with its versions. Making one is in `version_new`, a version's own page in `versions`."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import for_user, require_role, signed_in
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from r1platform.templatetags.r1_parts import may_edit
from training_app import services
from training_app.models import Dataset, DatasetKind, DatasetVersion

PER_PAGE = 50
SORTS = {"newest": ("Newest first", "-id"), "oldest": ("Oldest first", "id"), "name": ("Name", "name")}


@require_safe
@project_page
def dataset_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Every dataset with its newest version."""
    versions = DatasetVersion.objects.order_by("-number").defer("manifest", "counts")
    rows = for_user(Dataset.objects.filter(project=project), request.user).prefetch_related(
        Prefetch("versions", versions)
    )
    text, kind, sort = (request.GET.get(name, "").strip() for name in ("q", "kind", "sort"))
    if text:
        rows = rows.filter(name__icontains=text) | rows.filter(description__icontains=text)
    if kind in DatasetKind.values:
        rows = rows.filter(kind=kind)
    page = Paginator(rows.order_by(SORTS.get(sort, SORTS["newest"])[1]), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [_row(dataset) for dataset in page],
        "kinds": DatasetKind.choices,
        "sorts": [(key, label) for key, (label, _order) in SORTS.items()],
        "values": request.GET,
        "filtered": bool(text or kind),
        "project": project,
        "may_edit": may_edit(request.user, project),
    }
    return render(request, "training_app/datasets/list.html", context)


def _row(dataset: Dataset) -> dict[str, Any]:
    versions = list(dataset.versions.all())
    return {"dataset": dataset, "version": versions[0] if versions else None, "num_versions": len(versions)}


@require_safe
@login_required
def dataset_detail(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """One dataset and its versions."""
    dataset = dataset_of(request, dataset_id)
    versions = dataset.versions.order_by("-number").select_related("upload", "rollouts_of").defer("manifest", "counts")
    context = {"dataset": dataset, "versions": versions, "may_edit": may_edit(request.user, dataset.project)}
    return render(request, "training_app/datasets/detail.html", context)


def dataset_of(request: HttpRequest, dataset_id: int) -> Dataset:
    """The dataset, if the user may see it."""
    return get_object_or_404(
        for_user(Dataset.objects.select_related("project", "created_by"), request.user), pk=dataset_id
    )


@require_POST
@login_required
def dataset_delete(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """Deletes a dataset that nothing was trained on."""
    dataset = dataset_of(request, dataset_id)
    require_role(request.user, dataset.project, Role.EDITOR)
    try:
        services.dataset_delete(dataset=dataset, user=signed_in(request))
    except ModelCoreError as error:
        messages.error(request, error.message)
        return redirect("dataset-detail", dataset_id)
    messages.success(request, f"“{dataset.name}” is deleted.")
    return redirect("dataset-list")
