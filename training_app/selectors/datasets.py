"""Readings of datasets and versions: lists, pages of rows, and what led to a version and came of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

from django.contrib.auth.models import AnonymousUser, User

from model_core.errors import DataError
from r1platform.lib.storage import version_dir
from training_app.models import DatasetVersion
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
        "rows": _rows(version, split, (page - 1) * size, size), "page": page, "num_pages": num_pages,
        "num_rows": num_rows, "previous": page - 1, "next": page + 1,
    }  # fmt: skip


def _rows(version: DatasetVersion, split: str, first: int, number: int) -> list[dict[str, Any]]:
    path = version_dir(version.pk) / "data" / f"{split}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in itertools.islice(file, first, first + number)]
    except FileNotFoundError:
        raise DataError(f"The files of {version} are not on this machine.") from None


def version_lineage(version: DatasetVersion) -> dict[str, Any]:
    """What a version was made from and which runs learnt from it."""
    upload = version.upload
    return {
        "source": version.config.get("source", ""),
        "upload": None if upload is None else {"id": upload.pk, "file_name": upload.file_name, "sha256": upload.sha256},
        "runs": list(version.runs.order_by("pk").values("id", "name", "state")),
    }
