"""Hashing of an imported model, in a process of its own on a node that has the directory; begun again when it falls silent.

The process owns the row under its fence: one that is told of a newer one ends without writing.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import timedelta

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.db.models import F, Q
from django.db.models.functions import Now

from model_core.errors import CheckpointError
from model_core.published import Unhashed, digest, look
from model_core.published.template import rendered
from r1platform.lib.live import publish
from r1platform.lib.processes import spawn
from r1platform.lib.storage import home
from r1platform.lib.transitions import StaleFence
from r1platform.models import Node
from serving_app.model_directories import directory_of
from serving_app.models import ImportedModel
from serving_app.states import ImportState
from serving_app.transitions import import_transition

logger = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
SILENT = timedelta(seconds=20)
AWAY_SECONDS = 60.0
"""After so long without the database it is not hashed any further."""


def import_check_start(import_id: int, fence: int) -> None:
    """Starts the process on this node; asked twice, both write the same."""
    argv = [sys.executable, "manage.py", "check_import", str(import_id), "--fence", str(fence)]
    spawn(argv, cwd=settings.BASE_DIR, env=os.environ, log=home() / "logs" / f"import-{import_id}.log")


def imports_reconcile() -> int:
    """Has imports hashed whose process was never started here, or is silent; returns how many."""
    here = Q(node=None) | Q(node__name=settings.R1_NODE_NAME)
    silent = ImportedModel.objects.filter(here, state=ImportState.CHECKING, removed_at=None, heartbeat_at__lt=Now() - SILENT)
    begun = 0
    for row in silent:
        taken = ImportedModel.objects.filter(pk=row.pk, fence=row.fence, state=ImportState.CHECKING)
        if taken.update(fence=F("fence") + 1, heartbeat_at=Now()):
            import_check_start(row.pk, row.fence + 1)
            begun += 1
    return begun


def imports_release() -> int:
    """Has the hashing of this node, which is shutting down, end within a second; the next start begins it anew."""
    mine = ImportedModel.objects.filter(state=ImportState.CHECKING, node__name=settings.R1_NODE_NAME)
    return mine.update(fence=F("fence") + 1, heartbeat_at=Now())


class ImportCheck:
    """One try under one fence."""

    def __init__(self, import_id: int, *, fence: int) -> None:
        self.fence = fence
        self.row = ImportedModel.objects.filter(pk=import_id, fence=fence, state=ImportState.CHECKING, removed_at=None)
        self._beat_due, self._heard_at = 0.0, time.monotonic()

    def run(self) -> None:
        """Hashes every file, and writes what was found, or why it is refused."""
        found = self.row.first()
        if found is None:
            return
        self.model = found
        self.row.update(node=Node.objects.filter(name=settings.R1_NODE_NAME).first(), heartbeat_at=Now())
        try:
            self._end(ImportState.READY, "", **self._hashed())
        except (CheckpointError, OSError) as error:
            self._end(ImportState.FAILED, str(error))
        except Unhashed:
            logger.info("Import %s is not to be hashed any more.", found.pk)

    def _hashed(self) -> dict[str, object]:
        directory = directory_of(self.model.name)
        seen = look(directory)
        if seen.refusals:
            raise CheckpointError(seen.refusals[0].message)
        if seen.template != self.model.chat_template:
            raise CheckpointError("The chat template has changed since it was approved. Look at the directory and import it again.")
        rendered(seen.template, seen.special)
        found = digest(directory, list(seen.files), told=self._told)
        if {name: size for name, size, _sha256 in found.files} != look(directory).files:
            raise CheckpointError("Files have changed while they were hashed. Import the directory again when it is whole.")
        files = [list(file) for file in found.files]
        return {"sha256": found.sha256, "num_bytes": found.num_bytes, "files": files, "progress": 1.0}

    def _told(self, num_bytes: int) -> bool:
        """Writes progress and heartbeat every second; False when the row is not ours any more."""
        if time.monotonic() < self._beat_due:
            return True
        self._beat_due = time.monotonic() + BEAT_SECONDS
        fraction = min(1.0, num_bytes / max(1, self.model.num_bytes))
        try:
            mine = self.row.update(progress=fraction, heartbeat_at=Now())
        except (OperationalError, InterfaceError) as error:
            logger.warning("The database is away: %s. The hashing goes on for a while.", error)
            connection.close()
            return time.monotonic() - self._heard_at < AWAY_SECONDS
        self._heard_at = time.monotonic()
        publish(f"overview.{self.model.project_id}", "import", imported_model=self.model.pk, progress=fraction)
        return bool(mine)

    def _end(self, to: str, reason: str, **fields: object) -> None:
        try:
            import_transition(imported=self.model, to=to, reason=reason, fields=fields, fence=self.fence)
        except StaleFence:
            logger.info("Import %s has a newer process than fence %s.", self.model.pk, self.fence)
