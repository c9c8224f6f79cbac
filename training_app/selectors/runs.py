"""Readings of runs: lists, events, rollouts, expert loads, logs, checkpoints, and how two configurations differ."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet

from model_core.errors import DataError
from model_core.rundir import RunDir
from r1platform.access import for_user
from r1platform.lib.storage import UnsafePath, open_artifact, run_dir
from r1platform.lib.tail import MAX_LOG_BYTES, read_log
from r1platform.models import Project
from training_app.models import Checkpoint, PhaseRun, RunEvent

Reader = User | AnonymousUser
MAX_EVENTS = 1000
MAX_ROLLOUT_BYTES = 32 << 20


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


def run_rollout_steps(run: PhaseRun) -> list[int]:
    """Steps whose rollouts were kept, in order."""
    steps = RunEvent.objects.filter(run=run, kind="rollouts").values_list("payload__step", flat=True)
    return sorted({int(step) for step in steps})


def run_rollouts(run: PhaseRun, *, step: int | None = None) -> dict[str, Any]:
    """The groups of one step (the newest when not given) and which steps there are. Raises DataError."""
    steps = run_rollout_steps(run)
    if not steps:
        return {"step": None, "steps": [], "groups": []}
    wanted = steps[-1] if step is None else step
    event = (
        RunEvent.objects.filter(run=run, kind="rollouts", payload__step=wanted)
        .select_related("attempt")
        .order_by("-pk")
        .first()
    )
    if event is None:
        raise DataError(
            f"Step {wanted} has no rollouts; there are those of steps {steps[0]} to {steps[-1]}.", field="step"
        )
    root = run_dir(run.pk, event.attempt.number)
    try:
        groups = list(_groups(open_artifact(root, event.payload["file"])))
    except (FileNotFoundError, UnsafePath):
        raise DataError(f"The rollouts of step {wanted} are not on this machine any more.", field="step") from None
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"The file of step {wanted}'s rollouts is damaged: {error}.", field="step") from error
    return {"step": wanted, "steps": steps, "groups": groups}


def _groups(path: Any) -> Iterator[dict[str, Any]]:
    size = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            size += len(line)
            if size > MAX_ROLLOUT_BYTES:
                return
            yield json.loads(line)


def run_experts(run: PhaseRun, *, step: int | None = None) -> dict[str, Any]:
    """Expert loads of one step (the newest when not given): layers, bias, max_violation; and which steps there are."""
    events = RunEvent.objects.filter(run=run, kind="experts")
    steps = sorted({int(found) for found in events.values_list("payload__step", flat=True)})
    chosen = events.order_by("-pk") if step is None else events.filter(payload__step=step).order_by("-pk")
    found = chosen.first()
    if found is None:
        if step is not None and steps:
            raise DataError(
                f"Step {step} has no expert loads; there are steps {steps[0]} to {steps[-1]}.", field="step"
            )
        return {"step": None, "steps": steps}
    return {**found.payload, "steps": steps}


def run_log(
    run: PhaseRun, *, attempt: int | None = None, offset: int | None = None, max_bytes: int = MAX_LOG_BYTES
) -> dict[str, Any]:
    """What an attempt (the newest when not given) has printed, from `offset` or its newest part."""
    numbers = run.attempts.order_by("-number").values_list("number", flat=True)
    number = numbers.first() if attempt is None else numbers.filter(number=attempt).first()
    if number is None:
        if attempt is not None:
            raise DataError(f"Run {run.pk} has no attempt {attempt}.", field="attempt")
        return {"attempt": None, "text": "", "next_offset": 0, "size": 0}
    return {"attempt": number, **read_log(RunDir(run_dir(run.pk, number)).log, offset=offset, max_bytes=max_bytes)}


def run_checkpoints(run: PhaseRun) -> QuerySet[Checkpoint]:
    """Every checkpoint, newest first; those that were removed have `removed_at`."""
    return run.checkpoints.select_related("attempt", "run").order_by("-id")

