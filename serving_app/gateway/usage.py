"""What each request used, written in batches by a thread, so that no request waits for it.

Rows wait in memory for at most a second. When the database is away they are kept, up to a limit that is logged. Requests
that run are written with them, so that what they have used is known when the process is killed.
"""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable

from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Model
from django.db.models.functions import Now
from prometheus_client import Counter

from r1platform.models import ApiKey, Project
from serving_app.background import call
from serving_app.models import Deployment, DeploymentRevision, UsageRecord

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 1.0
MAX_WAITING = 50_000
_GROWS = [
    "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "device_seconds", "cost_dollars", "status",
    "ttft_seconds", "seconds", "heartbeat_at", "revision",
]  # fmt: skip
LOST = Counter("r1_usage_records_lost_total", "Usage records that did not fit while the database was away.")


class UsageWriter:
    """A queue and the thread that empties it; the thread starts with the first record."""

    def __init__(self) -> None:
        self._waiting: deque[UsageRecord] = deque()
        self._running: dict[uuid.UUID, Callable[[], UsageRecord | None]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, request_id: uuid.UUID, record: Callable[[], UsageRecord | None]) -> None:
        """Has what a request has used so far written at every flush, until its last record is added or it is left."""
        self._running[request_id] = record
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def leave(self, request_id: uuid.UUID) -> None:
        """Ends a watch that no record follows."""
        self._running.pop(request_id, None)

    def add(self, record: UsageRecord) -> None:
        """Takes the last record of a request; returns at once."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            LOST.inc()
        self._waiting.append(record)
        self._running.pop(record.request_id, None)
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def flush(self) -> int:
        """Writes what waits and what runs, in this thread, and returns how many rows that were."""
        with self._lock:
            running = [record for record in [ask() for ask in list(self._running.values())] if record is not None]
            batch: list[UsageRecord] = []
            while self._waiting and len(batch) < 2000:
                batch.append(self._waiting.popleft())
            ended = {record.request_id for record in [*batch, *self._waiting]}
            rows = [*batch, *(record for record in running if record.request_id not in ended)]
            if not rows:
                return 0
            try:
                call(_write, rows)
            except DatabaseError as error:
                self._waiting.extendleft(reversed(batch))
                logger.warning("%s usage records wait for the database: %s", len(self._waiting), error)
                return 0
            return len(rows)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="usage-writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Ends itself when nothing came for a while, so that no connection stays open for nothing."""
        idle = 0
        while idle < 5:
            self._wake.wait(FLUSH_SECONDS)
            idle = 0 if self.flush() or self._running else idle + 1
        connections.close_all()


def _write(batch: list[UsageRecord]) -> None:
    for record in batch:
        record.heartbeat_at = Now() if record.status == UsageRecord.RUNNING else None
    try:
        with transaction.atomic():
            _put(batch)
    except IntegrityError:
        _forget_deleted(batch)
        _put(batch)


def _put(batch: list[UsageRecord]) -> None:
    """Makes the rows, or brings those that are there up to date; doing it twice is doing it once."""
    UsageRecord.objects.bulk_create(batch, update_conflicts=True, unique_fields=["request_id"], update_fields=_GROWS)


def _forget_deleted(batch: list[UsageRecord]) -> None:
    """Empties references to rows that were deleted between the request and now; the record itself stays."""
    references: list[tuple[str, type[Model]]] = [
        ("project_id", Project), ("deployment_id", Deployment), ("revision_id", DeploymentRevision), ("api_key_id", ApiKey),
        ("user_id", User),
    ]  # fmt: skip
    for name, model in references:
        wanted = {getattr(record, name) for record in batch}
        there = set(model._default_manager.filter(pk__in=wanted - {None}).values_list("pk", flat=True))
        for record in batch:
            if getattr(record, name) not in there:
                setattr(record, name, None)


USAGE = UsageWriter()
atexit.register(USAGE.flush)
