"""Readings of runs: lists, events, logs, checkpoints. Rollouts are in `selectors.rollouts`, experts in `selectors.experts`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet

from model_core.errors import DataError
from model_core.ranklog import rank_mark
from model_core.rundir import RunDir
from r1platform.access import for_user
from r1platform.lib.storage import run_dir
from r1platform.lib.tail import read_log, search_log
from r1platform.models import Project
from training_app.models import Checkpoint, PhaseRun, RunEvent

Reader = User | AnonymousUser
MAX_EVENTS = 1000
MAX_ANCESTORS = 50


def run_list(
    *, user: Reader, project: Project | None = None, filters: dict[str, Any] | None = None
) -> QuerySet[PhaseRun]:
    """Runs that the user may see, newest first. `filters` are lookups of the table."""
    runs = for_user(PhaseRun.objects.filter(**(filters or {})), user).select_related("launch__pipeline", "project")
    return runs if project is None else runs.filter(project=project)


def run_events(
    run: PhaseRun, *, after: int = 0, limit: int = MAX_EVENTS, kinds: list[str] | None = None
) -> list[dict[str, Any]]:
    """Events after the cursor `after`, oldest first, as the socket sends them."""
    rows = RunEvent.objects.filter(run=run, pk__gt=after)
    if kinds:
        rows = rows.filter(kind__in=kinds)
    values = rows.order_by("pk")[: min(limit, MAX_EVENTS)].values(
        "id", "attempt__number", "seq", "time", "kind", "payload"
    )
    return [
        {"id": row["id"], "attempt": row["attempt__number"], "seq": row["seq"], "time": row["time"].timestamp(),
         "kind": row["kind"], "payload": row["payload"]}
        for row in values
    ]  # fmt: skip


def run_log(
    run: PhaseRun, *, attempt: int | None = None, offset: int | None = None, before: int | None = None
) -> dict[str, Any]:
    """What an attempt (the newest when not given) has printed: from `offset`, up to `before`, or its newest part.

    Raises DataError.
    """
    number = _attempt(run, attempt)
    if number is None:
        return {"attempt": None, "text": "", "offset": 0, "next_offset": 0, "size": 0}
    return {"attempt": number, **read_log(RunDir(run_dir(run.pk, number)).log, offset=offset, before=before)}


def run_log_search(run: PhaseRun, *, text: str = "", attempt: int | None = None, rank: int | None = None) -> dict[str, Any]:
    """Lines of an attempt's log (the newest when not given) that hold `text`, those of one rank if it is named.

    Raises DataError.
    """
    number = _attempt(run, attempt)
    if number is None:
        return {"attempt": None, "lines": [], "num_found": 0, "num_searched": 0, "size": 0}
    begins = "" if rank is None else rank_mark(rank)
    return {"attempt": number, **search_log(RunDir(run_dir(run.pk, number)).log, text, begins=begins)}


def run_log_path(run: PhaseRun, *, attempt: int | None = None) -> Path:
    """The whole log of an attempt, the newest when not given. Raises DataError when there is none on this machine."""
    number = _attempt(run, attempt)
    path = None if number is None else RunDir(run_dir(run.pk, number)).log
    if path is None or not path.is_file():
        raise DataError("Nothing was printed yet, or it lies on another machine.", field="attempt")
    return path


def _attempt(run: PhaseRun, wanted: int | None) -> int | None:
    """The number of the attempt that is asked for, of the newest without; None when there is none yet."""
    numbers = run.attempts.order_by("-number").values_list("number", flat=True)
    number = numbers.first() if wanted is None else numbers.filter(number=wanted).first()
    if number is None and wanted is not None:
        raise DataError(f"Run {run.pk} has no attempt {wanted}.", field="attempt")
    return number


def run_checkpoints(run: PhaseRun) -> QuerySet[Checkpoint]:
    """Every checkpoint, newest first; those that were removed have `removed_at`."""
    return run.checkpoints.select_related("attempt", "run").order_by("-id")


def checkpoint_ancestors(checkpoint: Checkpoint) -> list[int]:
    """Ids of the checkpoints that it was made from, by training on or by learning from what they say, the nearest first."""
    found: dict[int, None] = {}
    waiting = [checkpoint.run]
    while waiting and len(found) < MAX_ANCESTORS:
        run = waiting.pop(0)
        for before in (run.starts_from, run.rollouts_from):
            if before is not None and before.pk not in found:
                found[before.pk] = None
                waiting.append(before.run)
    return list(found)
