"""One dataset version: how far its preparation is, what the funnel dropped, what is in it, what it led to."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import for_user, require_role, signed_in
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from r1platform.templatetags.r1_parts import may_edit
from training_app import selectors, services
from training_app.models import DatasetVersion
from training_app.states import VersionState

SPLITS = (("train", "Train"), ("held_out", "Held out"))
MOVING = frozenset({VersionState.QUEUED, VersionState.PREPARING})


@require_safe
@login_required
def version_detail(request: HttpRequest, dataset_id: int, number: int) -> HttpResponse:
    """The version's page; while it is prepared, its parts stay fresh."""
    version = version_of(request, dataset_id, number)
    split = request.GET.get("split") if request.GET.get("split") in dict(SPLITS) else "train"
    manifest = version.manifest or {}
    context = {
        "version": version,
        "dataset": version.dataset,
        "is_moving": version.state in MOVING,
        "is_over": version.state not in MOVING and version.state != VersionState.READY,
        "is_ready": version.state == VersionState.READY,
        "may_edit": may_edit(request.user, version.dataset.project),
        "funnel": funnel_rows(manifest),
        "statistics": manifest.get("statistics", {}),
        "preview": _preview(request, version, split or "train"),
        "splits": SPLITS,
        "split": split,
        "runs": version.runs.select_related("launch__pipeline").order_by("-id")[:20],
        "transitions": version.transitions.select_related("user").order_by("-id"),
    }
    return render(request, "training_app/datasets/version.html", context)


def version_of(request: HttpRequest, dataset_id: int, number: int) -> DatasetVersion:
    """The version, if the user may see its dataset."""
    versions = for_user(DatasetVersion.objects.all(), request.user, path="dataset__project")
    versions = versions.select_related("dataset__project", "upload", "created_by", "node")
    return get_object_or_404(versions, dataset_id=dataset_id, number=number)


def funnel_rows(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Each filter with the share that was left after it, of what came in first."""
    steps = manifest.get("funnel", [])
    first = steps[0]["kept"] + steps[0]["dropped"] if steps else 0
    return [{**step, "share": step["kept"] / first if first else None} for step in steps]


def _preview(request: HttpRequest, version: DatasetVersion, split: str) -> dict[str, Any] | None:
    if version.state != VersionState.READY:
        return None
    number = request.GET.get("page", "1")
    page = int(number) if number.isdecimal() and 0 < len(number) < 9 else 1
    try:
        return selectors.version_preview(version, split=split, page=max(page, 1))
    except ModelCoreError as error:
        return {"rows": [], "error": error.message}


@require_POST
@login_required
def version_stop(request: HttpRequest, dataset_id: int, number: int) -> HttpResponse:
    """Ends a preparation; what was written is thrown away."""
    version = version_of(request, dataset_id, number)
    require_role(request.user, version.dataset.project, Role.EDITOR)
    try:
        services.version_stop(version=version, user=signed_in(request))
        messages.success(request, f"{version} is stopped. Nothing of it is kept; make another version to try again.")
    except IllegalTransition:
        version.refresh_from_db()
        messages.error(request, f"{version} is {version.get_state_display().lower()} already.")
    except ModelCoreError as error:
        messages.error(request, error.message)
    return redirect("version-detail", dataset_id, number)
