"""Brings the lines of an attempt's events.jsonl into the tables, each exactly once.

One batch is one transaction: events by COPY, the pyramid, checkpoints, the run's summary, and the offset in the file.
A supervisor that dies in between leaves all or nothing; the next goes on from the offset that the table has.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from django.db import DatabaseError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from model_core.rundir import RunDir, used_until
from r1platform.lib.jsonb import jsonb_dumps, jsonb_loads
from r1platform.lib.live import publish
from r1platform.lib.storage import run_dir
from r1platform.lib.tail import read_lines, wait_for_growth
from r1platform.lib.transitions import StaleFence
from training_app import buckets, pyramid
from training_app.models import Checkpoint, MetricSeries, PhaseRun, RunAttempt, RunEvent
from training_app.states import AttemptState

logger = logging.getLogger(__name__)
BATCH_BYTES = 2 << 20
OVERVIEW_SECONDS = 1.0
_EVENTS = RunEvent._meta.db_table


@dataclass
class _Batch:
    """What the lines of one batch amount to."""

    rows: list[tuple[int, float, str, str]] = field(default_factory=list)
    stamps: list[tuple[int, float, int, float]] = field(default_factory=list)
    """Step, time, tokens and process seconds of each event with scalars."""
    points: dict[str, tuple[list[int], list[Any]]] = field(default_factory=dict)
    """Of each scalar the numbers of its stamps, and its values."""
    newest_step: int = -1
    summary: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] | None = None
    checkpoints: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    num_tokens: int | None = None
    process_seconds: float | None = None
    kinds: set[str] = field(default_factory=set)


class Ingest:
    """Follows one attempt's events under the fence of its supervisor."""

    def __init__(self, attempt: RunAttempt, rundir: RunDir, *, fence: int) -> None:
        self.attempt, self.path, self.fence = attempt, rundir.events, fence
        self.run_id, self.project_id = attempt.run_id, attempt.run.project_id
        self.offset, self.last_seq = attempt.events_offset, attempt.last_seq
        self.num_processes = attempt.run.num_processes
        self.started = attempt.events.filter(kind="started").exists()
        earlier = attempt.run.attempts.filter(number__lt=attempt.number)
        self._earlier_seconds = device_seconds_of(earlier)
        self._earlier_tokens = tokens_of(earlier) - tokens_at_start(attempt)
        self._series: dict[str, MetricSeries] = {}
        self._overview_due = 0.0

    def take(self) -> bool:
        """Takes in one batch; True when there was something, so that there may be more. Raises StaleFence."""
        lines, offset = read_lines(self.path, self.offset, max_bytes=BATCH_BYTES)
        if not lines:
            return False
        batch = self._parse(lines)
        last_seq = batch.rows[-1][0] if batch.rows else self.last_seq
        try:
            last_id = self._write(batch, offset, last_seq)
        except DatabaseError:
            self._series = {}  # rows that were rolled back are not there; each is read again when it is needed
            raise
        self.offset, self.last_seq = offset, last_seq
        self.started = self.started or "started" in batch.kinds
        self._tell(last_id, batch)
        return True

    def wait(self, seconds: float) -> None:
        """Returns when there is something to take in, at the latest after `seconds`."""
        wait_for_growth(self.path, self.offset, seconds=seconds)

    @transaction.atomic
    def _write(self, batch: _Batch, offset: int, last_seq: int) -> int:
        """All of the batch or nothing; returns the id of the newest event of the run."""
        self._own()
        last_id = self._write_events(batch)
        self._write_points(batch)
        for kind, payload in batch.checkpoints:
            self._write_checkpoint(kind, payload)
        self._write_run(batch)
        RunAttempt.objects.filter(pk=self.attempt.pk).update(
            events_offset=offset, last_seq=last_seq, heartbeat_at=Now()
        )
        return last_id

    def _parse(self, lines: list[bytes]) -> _Batch:
        batch = _Batch()
        seq = self.last_seq
        for line in lines:
            try:
                event = jsonb_loads(line)
                number, at, kind, payload = int(event["seq"]), float(event["time"]), event["kind"], event["payload"]
            except (ValueError, KeyError, TypeError):
                logger.warning("A line of %s is no event and is left out: %r", self.path, line[:200])
                continue
            if number <= seq:
                continue
            seq = number
            batch.rows.append((number, at, kind, jsonb_dumps(payload)))
            batch.kinds.add(kind)
            self._sort(batch, kind, at, payload)
        return batch

    def _sort(self, batch: _Batch, kind: str, at: float, payload: dict[str, Any]) -> None:
        if kind == "scalars":
            _sort_scalars(batch, at, payload)
            return
        _sort_use(batch, payload)
        if kind == "progress":
            batch.progress = payload
        elif kind == "evaluation":
            measured = {key: value for key, value in payload.items() if key != "examples"}
            batch.summary["evaluation"] = measured
            if payload.get("when") == "before":
                batch.summary["accuracy_before"] = payload.get("accuracy")
        elif kind in {"checkpoint", "checkpoint_removed"}:
            batch.checkpoints.append((kind, payload))

    def _own(self) -> None:
        """Locks the run and, after it as everybody does, the attempt; makes sure that it is still ours and where we left it."""
        PhaseRun.objects.select_for_update(no_key=True).values("pk").get(pk=self.run_id)
        row = RunAttempt.objects.select_for_update().values("fence", "events_offset").get(pk=self.attempt.pk)
        if row["fence"] != self.fence or row["events_offset"] != self.offset:
            raise StaleFence("Attempt", self.attempt.pk, self.fence)

    def _write_events(self, batch: _Batch) -> int:
        """Appends the rows and returns the id of the newest event of the run."""
        run, attempt = self.run_id, self.attempt.pk
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY {_EVENTS} (run_id, attempt_id, seq, time, kind, payload) FROM STDIN") as copy:
                for seq, at, kind, payload in batch.rows:
                    copy.write_row((run, attempt, seq, datetime.fromtimestamp(at, UTC), kind, payload))
            cursor.execute(f"SELECT max(id) FROM {_EVENTS} WHERE run_id = %s", [run])  # noqa: S608 (our own table)
            return int(cursor.fetchone()[0] or 0)

    def _write_points(self, batch: _Batch) -> None:
        """Writes the points; those of a step that is there already replace what follows from it on."""
        stamps, written = np.array(batch.stamps, buckets.STAMP), []
        for name, (rows, values) in batch.points.items():
            first = batch.stamps[rows[0]][0]
            series = self._series.get(name) or self._new_series(name, first)
            if series.num_points and first <= series.last_step:
                pyramid.cut(series, first)
            written.append((series, buckets.points(stamps[rows], values)))
        if written:
            pyramid.write(written)

    def _new_series(self, name: str, step: int) -> MetricSeries:
        made, _ = MetricSeries.objects.get_or_create(
            run_id=self.run_id, name=name, defaults={"first_step": step, "last_step": step}
        )
        self._series[name] = made
        return made

    def _write_checkpoint(self, kind: str, payload: dict[str, Any]) -> None:
        rows = Checkpoint.objects.filter(attempt=self.attempt, step=payload["step"])
        if kind == "checkpoint_removed":
            rows.update(removed_at=Now())
            return
        Checkpoint.objects.update_or_create(
            attempt=self.attempt, step=payload["step"],
            defaults={"run_id": self.run_id, "metrics": payload.get("metrics") or {}, "sha256": payload["sha256"],
                      "size_bytes": payload["size_bytes"], "is_final": payload["is_final"], "removed_at": None},
        )  # fmt: skip

    def _write_run(self, batch: _Batch) -> None:
        changes: dict[str, Any] = {}
        if batch.summary:
            now = PhaseRun.objects.values_list("summary", flat=True).get(pk=self.run_id)
            changes["summary"] = {**now, **batch.summary}
        if batch.progress is not None:
            changes["progress"] = batch.progress
        if batch.num_tokens is not None:
            changes["num_tokens"] = self._earlier_tokens + batch.num_tokens
        if batch.process_seconds is not None:
            changes["device_seconds"] = self._earlier_seconds + batch.process_seconds * self.num_processes
        if changes:
            PhaseRun.objects.filter(pk=self.run_id).update(**changes)

    def _tell(self, last_id: int, batch: _Batch) -> None:
        publish(f"run.{self.run_id}", "events", last_id=last_id)
        if batch.progress is not None and time.monotonic() >= self._overview_due:
            self._overview_due = time.monotonic() + OVERVIEW_SECONDS
            publish(f"overview.{self.project_id}", "progress", run=self.run_id, progress=batch.progress)


def _sort_use(batch: _Batch, payload: dict[str, Any]) -> None:
    """Time and tokens, of every event that tells them: a run may use its devices long before its first step."""
    tokens, seconds = payload.get("tokens"), payload.get("process_seconds")
    if isinstance(tokens, int) and not isinstance(tokens, bool):
        batch.num_tokens = tokens
    if isinstance(seconds, int | float) and math.isfinite(seconds):
        batch.process_seconds = float(seconds)


def _sort_scalars(batch: _Batch, at: float, payload: dict[str, Any]) -> None:
    step, tokens, seconds = int(payload["step"]), int(payload["tokens"]), float(payload["process_seconds"])
    batch.num_tokens, batch.process_seconds = tokens, seconds
    goes_back, number = step <= batch.newest_step, len(batch.stamps)
    batch.newest_step = max(step, batch.newest_step)
    batch.stamps.append((step, at, tokens, seconds))
    given = {name: value for name, value in payload["values"].items() if value is not None}
    batch.summary.update(given)
    points = batch.points
    for name, value in given.items():
        column = points.get(name)
        if column is None:
            column = points[name] = [], []
        rows, values = column
        while goes_back and rows and batch.stamps[rows[-1]][0] >= step:
            rows.pop()
            values.pop()
        rows.append(number)
        values.append(value)


def device_seconds_of(attempts: QuerySet[RunAttempt]) -> float:
    """What these attempts have used: seconds times processes, at least from their start to their end, or to now.

    Of a lost attempt nobody knows when it ended: it counts as far as it told.
    """
    last = RunEvent.objects.filter(attempt__in=attempts, kind="scalars").order_by("attempt_id", "-seq")
    told = dict(last.distinct("attempt_id").values_list("attempt_id", "payload__process_seconds"))
    until = Coalesce("finished_at", Now())
    rows = attempts.annotate(until=until).values_list("pk", "state", "started_at", "until", "run__num_processes")
    used = 0.0
    for pk, state, begun, ended, num_processes in rows:
        held = (ended - begun).total_seconds() if begun and state != AttemptState.LOST else 0.0
        used += max(float(told.get(pk, 0.0)), held) * num_processes
    return used


def tokens_of(attempts: QuerySet[RunAttempt]) -> int:
    """Tokens that these attempts have processed, those of steps that were lost and made again included."""
    last = RunEvent.objects.filter(attempt__in=attempts, kind="scalars").order_by("attempt_id", "-seq").distinct("attempt_id")
    told = dict(last.values_list("attempt_id", "payload__tokens"))
    return sum(max(int(told.get(one.pk) or 0) - tokens_at_start(one), 0) for one in attempts if told.get(one.pk))


def tokens_at_start(attempt: RunAttempt) -> int:
    """What an attempt's counter of tokens began with: that of the checkpoint which it went on from."""
    try:
        stored = json.loads(RunDir(run_dir(attempt.run_id, attempt.number)).config.read_text(encoding="utf-8"))
        resumed_from = stored["paths"]["resume_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return used_until(resumed_from)[1] if resumed_from else 0
