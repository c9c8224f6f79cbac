"""One dataset version: how far its preparation is, what the funnel dropped, what is in it, what it led to."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
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
    report = with_shares(selectors.version_report(version))
    context = {
        "version": version,
        "dataset": version.dataset,
        "is_moving": version.state in MOVING,
        "is_over": version.state not in MOVING and version.state != VersionState.READY,
        "is_ready": version.state == VersionState.READY,
        "may_edit": may_edit(request.user, version.dataset.project),
        "report": report,
        "again": again_address(version),
        "statistics": report["statistics"],
        "plots": plots(report["statistics"]),
        "preview": _preview(request, version, split or "train"),
        "splits": SPLITS,
        "split": split,
        "runs": version.runs.select_related("launch__pipeline").prefetch_related("made_versions__dataset").order_by("-id")[:20],
        "transitions": version.transitions.select_related("user").order_by("-id"),
    }
    return render(request, "training_app/datasets/version.html", context)


def version_of(request: HttpRequest, dataset_id: int, number: int) -> DatasetVersion:
    """The version, if the user may see its dataset."""
    versions = for_user(DatasetVersion.objects.all(), request.user, path="dataset__project")
    versions = versions.select_related("dataset__project", "upload", "rollouts_of__dataset_version__dataset", "created_by", "node")
    return get_object_or_404(versions, dataset_id=dataset_id, number=number)


def with_shares(report: dict[str, Any]) -> dict[str, Any]:
    """The report with the rows that could be used and those that were written, as parts of what was read."""
    read, usable = report["num_read"], report["num_read"] - report["bad_rows"]["num"]
    written = report["num_rows"] + report["num_held_out"]
    shares = {"usable_share": usable / read, "written_share": written / read} if read else {}
    return {**report, "usable": usable, "written": written, **shares}


def plots(statistics: dict[str, Any]) -> list[dict[str, str]]:
    """A card for each part of the statistics that can be drawn: lengths as histograms, all else by its most frequent."""
    found = []
    for key, part in statistics.items():
        if isinstance(part, dict) and (part.get("histogram") or part.get("most_common")):
            what, is_length = key.removesuffix("_chars"), key.endswith("_chars")
            title = f"{what} length" if is_length else what
            title = title.replace("_", " ").capitalize()
            found.append({"key": key, "title": title, "small": "characters" if is_length else "the most frequent"})
    return sorted(found, key=lambda plot: plot["small"] != "characters")


def again_address(version: DatasetVersion) -> str:
    """Where another version from the same source begins."""
    query = {"from": version.config.get("source", "")}
    if version.upload_id is not None:
        query = {"upload": str(version.upload_id), "as": version.config.get("source", "")}
    elif version.rollouts_of_id is not None:
        query["run"] = str(version.rollouts_of_id)
    return f"{reverse('version-new', args=[version.dataset_id])}?{urlencode(query)}"


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
