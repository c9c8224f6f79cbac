"""Preparing versions: each in its own process under a small supervisor, adopted when the supervisor dies.

A preparation writes into `<version_dir>/data.part` and renames it at its end, so it can be begun again at any time. The
supervisor's proof of ownership is its own pid and start time in the version's row.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from model_core.errors import DataError
from model_core.rundir import write_json
from r1platform.lib.live import publish
from r1platform.lib.processes import (
    ProcessRef,
    end_unrecorded,
    is_alive,
    spawn,
    started_at,
    stop_group,
    this_process,
)
from r1platform.lib.storage import version_dir
from r1platform.lib.tail import last_words
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Node
from training_app.models import DatasetVersion
from training_app.preparation_dir import PreparationDir
from training_app.preparation_inputs import inputs_lay_out, source_environment
from training_app.states import VersionState
from training_app.transitions import version_transition

logger = logging.getLogger(__name__)
MAX_AT_ONCE = 2
MAX_TRIES = 3
POLL_SECONDS = 0.1
BEAT_SECONDS = 1.0
SILENT = timedelta(seconds=15)


def preparations_start() -> int:
    """Starts queued preparations on this node while fewer than MAX_AT_ONCE run here; returns how many."""
    node = Node.objects.filter(name=settings.R1_NODE_NAME).first()
    if node is None:
        return 0
    busy = DatasetVersion.objects.filter(state=VersionState.PREPARING, node=node).count()
    started = 0
    while busy + started < MAX_AT_ONCE:
        with transaction.atomic():
            queued = DatasetVersion.objects.select_for_update(of=("self",), skip_locked=True).select_related("dataset")
            version = queued.filter(state=VersionState.QUEUED).order_by("pk").first()
            if version is None:
                break
            version_transition(
                version=version, to=VersionState.PREPARING, reason=f"It is prepared on {node.name}.",
                fields={"node": node, "heartbeat_at": Now(), "pid": None},
            )  # fmt: skip
            _spawn_supervisor(version)
        started += 1
    return started


def preparations_reconcile() -> int:
    """Gives preparations of this node whose supervisor is silent a new one; returns how many."""
    silent = DatasetVersion.objects.filter(
        Q(heartbeat_at__lt=Now() - SILENT) | Q(heartbeat_at=None), state=VersionState.PREPARING,
        node__name=settings.R1_NODE_NAME,
    )  # fmt: skip
    found = 0
    for version in silent:
        taken = silent.filter(pk=version.pk, heartbeat_at=version.heartbeat_at).update(pid=None, heartbeat_at=Now())
        if taken:
            logger.warning("The preparation of version %s has a silent supervisor; it gets another.", version.pk)
            _spawn_supervisor(version)
            found += 1
    return found


def preparations_release(*, seconds: float = 20.0) -> bool:
    """Ends the preparations of this node, which is shutting down, and queues them again; says whether all are gone."""
    mine = DatasetVersion.objects.filter(state=VersionState.PREPARING, node__name=settings.R1_NODE_NAME)
    released = list(mine.select_related("dataset"))
    for version in released:
        with suppress(IllegalTransition):  # it has ended in this moment
            version_transition(
                version=version, to=VersionState.QUEUED, reason="The node was shut down; it is prepared at the next start.",
                fields={"pid": None, "progress": 0.0, "counts": {}},
            )  # fmt: skip
    deadline = time.monotonic() + seconds
    for version in released:
        while _is_supervised(version):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        end_unrecorded(version_dir(version.pk))
    return True


def _is_supervised(version: DatasetVersion) -> bool:
    return version.pid is not None and started_at(version.pid) == version.process_started_at


def _spawn_supervisor(version: DatasetVersion) -> None:
    argv = [sys.executable, "manage.py", "supervise_preparation", str(version.pk)]
    log = version_dir(version.pk) / "supervisor.log"
    transaction.on_commit(lambda: spawn(argv, cwd=settings.BASE_DIR, env=os.environ, log=log) and None)


class PreparationSupervisor:
    """Owns the preparation of one version until it has ended or another supervisor has taken over."""

    def __init__(self, version_id: int) -> None:
        self.row = DatasetVersion.objects.filter(pk=version_id)
        self.directory = PreparationDir(version_dir(version_id))
        self.me = this_process()
        self._beat_due = 0.0

    def run(self) -> None:
        """Claims the version, prepares it, writes how it ended."""
        claim = self.row.filter(state=VersionState.PREPARING, pid=None)
        if not claim.update(pid=self.me.pid, process_started_at=self.me.started_at, heartbeat_at=Now()):
            return
        self.version = self.row.select_related("dataset__project", "rollouts_of").get()
        end_unrecorded(self.directory.path)
        if (result := self.directory.read_result()) is not None:
            self._finish(result)  # the supervisor before this one died between the end and writing it down
            return
        for _try in range(MAX_TRIES):
            try:
                ref = self._start()
            except DataError as error:
                self._end(VersionState.FAILED, error.message)
                return
            if not self._follow(ref):
                return
            result = self.directory.read_result()
            if result is not None:
                self._finish(result)
                return
        words = last_words(self.directory.log)
        self._end(VersionState.FAILED, f"Preparing died {MAX_TRIES} times.\n{words}".strip())

    def _start(self) -> ProcessRef:
        directory, version = self.directory, self.version
        directory.clear()
        files, inputs = inputs_lay_out(version, directory.inputs)
        self.row.update(inputs=inputs, counts={})
        write_json(directory.config, {"prepare": version.config, **files})
        env = source_environment(version.config["source"], mark=directory.path)
        argv = [sys.executable, "-m", "model_core", "prepare", str(directory.path)]
        return spawn(argv, cwd=Path(settings.BASE_DIR), env=env, log=directory.log)

    def _follow(self, ref: ProcessRef) -> bool:
        """Waits for the process; False when the version was stopped or taken over, and nothing is left of it."""
        while is_alive(ref):
            try:
                if not self._beat():
                    stop_group(ref, grace_seconds=2)
                    if self.row.filter(state=VersionState.STOPPED).exists():
                        shutil.rmtree(self.directory.path, ignore_errors=True)
                    return False
            except (OperationalError, InterfaceError) as error:
                logger.warning("The database is away: %s. The preparation goes on.", error)
                connection.close()
            time.sleep(POLL_SECONDS)
        return True

    def _beat(self) -> bool:
        """Writes heartbeat and progress every second; False when the version is not ours any more."""
        if time.monotonic() < self._beat_due:
            return True
        self._beat_due = time.monotonic() + BEAT_SECONDS
        fraction, text = self.directory.read_progress()
        mine = self.row.filter(state=VersionState.PREPARING, pid=self.me.pid, process_started_at=self.me.started_at)
        if not mine.update(heartbeat_at=Now(), progress=fraction, state_reason=text, counts=self.directory.read_counts()):
            return False
        publish(f"overview.{self.version.dataset.project_id}", "version", version=self.version.pk, progress=fraction)
        return True

    def _finish(self, result: dict[str, Any]) -> None:
        shutil.rmtree(self.directory.inputs, ignore_errors=True)
        counts = self.directory.read_counts()
        if result["status"] != "succeeded":
            self._end(VersionState.FAILED, result["error"]["message"], counts=counts)
            return
        manifest = result["manifest"]
        self._end(
            VersionState.READY, f"{manifest['num_rows']} rows, {manifest['num_held_out']} held out.", manifest=manifest,
            sha256=manifest["sha256"], num_rows=manifest["num_rows"], num_held_out=manifest["num_held_out"], progress=1.0,
            counts=counts,
        )  # fmt: skip

    def _end(self, to: str, reason: str, **fields: Any) -> None:
        """The last word, unless it was stopped or taken over meanwhile."""
        with transaction.atomic():
            mine = self.row.select_for_update(of=("self",)).filter(state=VersionState.PREPARING, pid=self.me.pid)
            if mine.exists():
                version_transition(version=self.version, to=to, reason=reason, fields=fields)
