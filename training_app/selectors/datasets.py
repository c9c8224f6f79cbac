"""Readings of datasets and versions: lists, pages of rows, and what led to a version and came of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Exists, OuterRef, QuerySet

from model_core.errors import DataError
from model_core.filters import FILTERS
from r1platform.lib.storage import version_dir
from r1platform.models import Project
from training_app.models import DatasetVersion, PhaseRun, RunEvent
from training_app.states import VersionState

Reader = User | AnonymousUser
SPLITS = ("train", "held_out")
PER_PAGE = 20
MAX_PER_PAGE = 500


def version_preview(
    version: DatasetVersion, *, split: str = "train", page: int = 1, page_size: int = PER_PAGE
) -> dict[str, Any]:
    """One page of a split: rows, page, num_pages, num_rows, previous, next. Raises DataError."""
    if split not in SPLITS:
        raise DataError(f"A version has the splits {' and '.join(SPLITS)}, not “{split}”.", field="split")
    if version.state != VersionState.READY:
        raise DataError(f"{version} is {version.get_state_display().lower()}; its rows are there when it is ready.")
    num_rows = version.num_rows if split == "train" else version.num_held_out
    size = min(max(page_size, 1), MAX_PER_PAGE)
    num_pages = max(1, -(-num_rows // size))
    page = min(max(page, 1), num_pages)
    return {
        "rows": version_rows(version, split, (page - 1) * size, size), "page": page, "num_pages": num_pages,
        "num_rows": num_rows, "previous": page - 1, "next": page + 1,
    }  # fmt: skip


def version_rows(version: DatasetVersion, split: str, first: int, number: int) -> list[dict[str, Any]]:
    """So many rows of a split from the one numbered `first` on. Raises DataError when its files are not here."""
    path = version_dir(version.pk) / "data" / f"{split}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in itertools.islice(file, first, first + number)]
    except FileNotFoundError:
        raise DataError(f"The files of {version} are not on this machine.") from None


def version_lineage(version: DatasetVersion) -> dict[str, Any]:
    """What a version was made from and which runs learnt from it."""
    upload, run = version.upload, version.rollouts_of
    return {
        "source": version.config.get("source", ""),
        "upload": None if upload is None else {"id": upload.pk, "file_name": upload.file_name, "sha256": upload.sha256},
        "rollouts_of": None if run is None else {"id": run.pk, "name": run.name, "steps": version.inputs.get("steps")},
        "benchmarks": version.inputs.get("benchmarks", {}),
        "runs": list(version.runs.order_by("pk").values("id", "name", "state")),
    }


def runs_with_rollouts(project: Project) -> QuerySet[PhaseRun]:
    """Runs of the project that have stored rollouts, newest first."""
    stored = RunEvent.objects.filter(run=OuterRef("pk"), kind="rollouts")
    return PhaseRun.objects.filter(Exists(stored), project=project).order_by("-pk")


def version_report(version: DatasetVersion) -> dict[str, Any]:
    """What became of the rows: read, unusable, kept and dropped by each filter, found in benchmarks; with examples.

    Of a version that is prepared, or that failed, as far as it came.
    """
    manifest = version.manifest or {}
    counts = version.counts or _counts(manifest)
    steps = [_step(step, counts["num_read"]) for step in counts.get("funnel", [])]
    return {
        "num_read": counts.get("num_read", 0),
        "num_rows": counts.get("num_rows", 0),
        "num_held_out": counts.get("num_held_out", 0),
        "bad_rows": {"num": 0, **_by_reason(counts.get("bad_rows", {}))},
        "funnel": steps,
        "contamination": [found for step in steps for found in _contamination(version, step)],
        "statistics": manifest.get("statistics", {}),
    }


def _counts(manifest: dict[str, Any]) -> dict[str, Any]:
    """The counts of a version that was prepared before they were kept."""
    if not manifest.get("funnel") and not manifest.get("num_rows"):
        return {}
    bad, steps = manifest.get("bad_rows", {}), manifest.get("funnel", [])
    sizes = {name: manifest.get(name, 0) for name in ("num_rows", "num_held_out")}
    read = sum(sizes.values()) + bad.get("num", 0) + sum(step["dropped"] for step in steps)
    return {**sizes, "num_read": read, "bad_rows": bad, "funnel": steps}


def _step(step: dict[str, Any], num_read: int) -> dict[str, Any]:
    """A filter with its reasons, each with its examples, and the share of all rows that is left behind it."""
    plain = {"filter": "", "kept": 0, "dropped": 0, "rewritten": 0, "noted": {}, "examples": []}
    return {**plain, **_by_reason(step), "share": step["kept"] / num_read if num_read else None}


def _by_reason(counted: dict[str, Any]) -> dict[str, Any]:
    examples = counted.get("examples", [])
    reasons = [
        {"reason": reason, "num": num, "examples": [one for one in examples if one.get("reason") == reason]}
        for reason, num in counted.get("reasons", {}).items()
    ]
    return {**counted, "reasons": reasons, "examples": examples}


def _contamination(version: DatasetVersion, step: dict[str, Any]) -> list[dict[str, Any]]:
    """For each benchmark that a filter compared with: how many rows it dropped for it, and some of them."""
    if not getattr(FILTERS.get(step["filter"]), "needs_benchmarks", False):
        return []
    found = {reason["reason"].removeprefix("in "): reason for reason in step["reasons"]}
    told = version.inputs.get("benchmarks", {})
    return [
        {"benchmark": name, **told.get(name, {}), "dropped": found.get(name, {}).get("num", 0),
         "examples": found.get(name, {}).get("examples", [])}
        for name in sorted({*told, *found})
    ]  # fmt: skip
