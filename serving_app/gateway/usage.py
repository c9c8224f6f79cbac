"""What each request used, written in batches by a thread, so that no request waits for it.

Rows wait in memory for at most a second. When the database is away they are kept, up to a limit that is logged.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque

from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Model
from prometheus_client import Counter

from r1platform.models import ApiKey, Project
from serving_app.background import call
from serving_app.models import Deployment, DeploymentRevision, UsageRecord

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 1.0
MAX_WAITING = 50_000
LOST = Counter("r1_usage_records_lost_total", "Usage records that did not fit while the database was away.")


class UsageWriter:
    """A queue and the thread that empties it; the thread starts with the first record."""

    def __init__(self) -> None:
        self._waiting: deque[UsageRecord] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, record: UsageRecord) -> None:
        """Takes a record; returns at once."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            LOST.inc()
        self._waiting.append(record)
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def flush(self) -> int:
        """Writes what waits, in this thread, and returns how many rows that were."""
        with self._lock:
            batch: list[UsageRecord] = []
            while self._waiting and len(batch) < 2000:
                batch.append(self._waiting.popleft())
            if not batch:
                return 0
            try:
                call(_write, batch)
            except DatabaseError as error:
                self._waiting.extendleft(reversed(batch))
                logger.warning("%s usage records wait for the database: %s", len(self._waiting), error)
                return 0
            return len(batch)

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
            idle = 0 if self.flush() else idle + 1
        connections.close_all()


def _write(batch: list[UsageRecord]) -> None:
    try:
        with transaction.atomic():
            UsageRecord.objects.bulk_create(batch)
    except IntegrityError:
        _forget_deleted(batch)
        UsageRecord.objects.bulk_create(batch)


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
