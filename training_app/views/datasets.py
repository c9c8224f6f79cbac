"""Datasets: the list, one dataset with its versions, and making a version from a file or a generated task.

A new dataset and a new version share one form (`_prepare`); a version's own page is in `versions`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import ModelCoreError
from model_core.tasks import TASKS
from r1platform.access import for_user, require_role, signed_in
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from r1platform.templatetags.r1_parts import may_edit
from training_app import services
from training_app.forms import DatasetForm, FiltersForm, PrepareForm, UploadForm, guessed_mapping
from training_app.models import Dataset, DatasetKind, DatasetVersion, Upload

PER_PAGE = 50
NUM_SHOWN = 4
"""Rows of an upload that are shown before its fields are mapped."""
SORTS = {"newest": ("Newest first", "-id"), "oldest": ("Oldest first", "id"), "name": ("Name", "name")}


@require_safe
@project_page
def dataset_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Every dataset with its newest version."""
    versions = DatasetVersion.objects.order_by("-number").defer("manifest")
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
    versions = dataset.versions.order_by("-number").select_related("upload", "created_by").defer("manifest")
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


@require_http_methods(["GET", "HEAD", "POST"])
@project_page
def dataset_new(request: HttpRequest, project: Project) -> HttpResponse:
    """A dataset with its first version: choose where the rows come from, then name, map, filter."""
    require_role(request.user, project, Role.EDITOR)
    return _new(request, project, None)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def version_new(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """Another version of a dataset; it starts with the settings of the newest."""
    dataset = dataset_of(request, dataset_id)
    require_role(request.user, dataset.project, Role.EDITOR)
    return _new(request, dataset.project, dataset)


def _new(request: HttpRequest, project: Project, dataset: Dataset | None) -> HttpResponse:
    context: dict[str, Any] = {"dataset": dataset, "project": project, "tasks": TASKS.names()}
    upload = _upload(request, project)
    if upload is not None:
        return _prepare(request, project, {**context, "upload": upload, "source": "upload"})
    source = request.GET.get("from", "")
    if source == "generated" and TASKS.names():
        return _prepare(request, project, {**context, "upload": None, "source": source})
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid() and (made := _receive(request, form, project)):
        return redirect(f"{request.path}?upload={made.pk}")
    last = dataset.versions.exclude(upload=None).order_by("-number").first() if dataset else None
    context |= {"form": form, "source": source, "last_upload": last.upload if last else None}
    return render(request, "training_app/datasets/source.html", context, status=422 if form.is_bound else 200)


def _upload(request: HttpRequest, project: Project) -> Upload | None:
    number = request.GET.get("upload", "")
    if not number.isdecimal() or len(number) > 17:
        return None
    return get_object_or_404(for_user(Upload.objects.filter(project=project), request.user), pk=int(number))


def _receive(request: HttpRequest, form: UploadForm, project: Project) -> Upload | None:
    file = form.cleaned_data["file"]
    try:
        return services.upload_create(project=project, user=signed_in(request), file_name=file.name, file=file)
    except ModelCoreError as error:
        form.add_error("file", error.message)
        return None


def _prepare(request: HttpRequest, project: Project, context: dict[str, Any]) -> HttpResponse:
    """The second step: name (of a new dataset), settings of the source, mapping, funnel."""
    dataset, upload = context["dataset"], context["upload"]
    last = dataset.versions.order_by("-number").first() if dataset else None
    data = request.POST if request.method == "POST" else None
    form = prepare_form(data, upload=upload, task=request.GET.get("task", ""), last=last)
    funnel = FiltersForm(data, steps=last.config.get("filters") if last else [])
    about = DatasetForm(data, project=project, initial=_named(upload)) if dataset is None else None
    parts = [part for part in (form, funnel, about) if part is not None]
    valid = [part.is_valid() for part in parts]
    if data is not None and all(valid):
        version = _create(request, project, dataset, about, form, funnel, upload)
        if version is not None:
            messages.success(request, f"Preparing {version}. This page follows it.")
            return redirect("version-detail", version.dataset_id, version.number)
    context |= {"form": form, "funnel": funnel, "about": about, "task": getattr(form, "task", "")}
    context["gaps"] = preview_gaps(upload, form) if upload is not None else []
    context["back"] = reverse("dataset-detail", args=[dataset.pk]) if dataset else reverse("dataset-list")
    return render(request, "training_app/datasets/prepare.html", context, status=200 if data is None else 422)


def prepare_form(data: Any, *, upload: Upload | None, task: str, last: DatasetVersion | None) -> PrepareForm:
    """The form for this source, with the values of the newest version or a guess."""
    values: dict[str, Any] = {}
    if upload is not None:
        columns = [str(name) for name in upload.columns]
        values["mapping"] = guessed_mapping(columns)
        if last is not None and last.upload_id is not None:
            values = dict(last.config)
        return PrepareForm(data, source=upload.format, columns=columns, values=values)
    names = TASKS.names()
    if (
        last is not None
        and last.config.get("source") == "generated"
        and task in {"", last.config["source_config"].get("task")}
    ):
        values, task = dict(last.config), last.config["source_config"].get("task", "")
    chosen = task if task in names else names[0]
    form = PrepareForm(data, source="generated", task=chosen, values=values)
    form.task = chosen  # type: ignore[attr-defined]
    return form


def preview_gaps(upload: Upload, form: PrepareForm) -> list[dict[str, Any]]:
    """Fields that the mapping takes and that some of the shown rows lack, with how many."""
    names = [form[f"mapping.{part}"].value() for part in ("prompt", "completion", "answer")]
    rows = (upload.preview or [])[:NUM_SHOWN]
    gaps = [
        {"name": name, "missing": sum(not str(row.get(name) or "").strip() for row in rows), "of": len(rows)}
        for name in names
        if name
    ]
    return [gap for gap in gaps if gap["missing"]]


def _named(upload: Upload | None) -> dict[str, str]:
    return {"name": upload.file_name.split(".")[0]} if upload else {"kind": DatasetKind.SELF}


def _create(
    request: HttpRequest,
    project: Project,
    dataset: Dataset | None,
    about: DatasetForm | None,
    form: PrepareForm,
    funnel: FiltersForm,
    upload: Upload | None,
) -> DatasetVersion | None:
    """The dataset, if it is new, and the version; neither when one is refused."""
    config = form.config_with(funnel.steps())
    if config is None:
        return None
    try:
        with transaction.atomic():
            if dataset is None:
                assert about is not None
                dataset = services.dataset_create(project=project, user=signed_in(request), **about.cleaned_data)
            return services.version_prepare(dataset=dataset, user=signed_in(request), config=config, upload=upload)
    except ModelCoreError as error:
        form.place(error)
        return None
