"""Owns one trainer on its node: starts or adopts it, brings in what it tells, passes on what people want, ends it.

Every write carries the fence. A supervisor that is told of a newer owner ends itself and leaves the trainer to it; when
the attempt was given up meanwhile, nobody owns the trainer and it ends too. One that loses the database keeps its
trainer and goes on when it is back. What the end means for the run is in `verdict`.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now

from model_core.config import RunConfig, RunPaths
from model_core.errors import CheckpointError, ModelCoreError
from model_core.launch import command, environment
from model_core.rundir import RunDir, write_json
from r1platform.lib.leases import leases_of
from r1platform.lib.processes import (
    ProcessRef,
    boot_id,
    child_environment,
    end_unrecorded,
    exit_code,
    group_pids,
    is_alive,
    spawn,
    stop_group,
    this_process,
)
from r1platform.lib.storage import run_dir, upload_path, version_dir
from r1platform.lib.transitions import IllegalTransition, StaleFence
from r1platform.models import DeviceKind
from training_app.budgets import budget_left
from training_app.ingest import Ingest
from training_app.models import Checkpoint, RunAttempt
from training_app.reconciling import attempt_reclaim
from training_app.scheduling import holder_of
from training_app.services.runs import checkpoint_dir
from training_app.states import LIVE_ATTEMPTS, AttemptState, Desired, RunState
from training_app.transitions import attempt_transition, run_transition
from training_app.verdict import attempt_finish

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.1
BEAT_SECONDS = 2.0
STOP_SECONDS = 600.0
"""How long a trainer may take from being asked to stop to its end; then its processes are ended."""
KILL_SECONDS = 30.0
WORDS = {Desired.STOP: "Asked to stop.", Desired.PAUSE: "Asked to pause."}


class AttemptSupervisor:
    """One supervisor of one attempt under one fence; `run` returns when there is nothing left to own."""

    def __init__(self, attempt_id: int, *, fence: int) -> None:
        self.fence = fence
        self.row = RunAttempt.objects.filter(pk=attempt_id)
        self._beat_due = 0.0
        self._asked = False
        self._stop_deadline = float("inf")

    def run(self) -> None:
        """Owns the trainer until it has ended, or until a newer supervisor has taken over."""
        try:
            if self._claim():
                self._own()
        except StaleFence:
            logger.info("%s has a newer owner than fence %s; this supervisor ends.", self.attempt, self.fence)
            attempt_reclaim(self.attempt.pk)

    def _claim(self) -> bool:
        found = self.row.select_related(
            "run__dataset_version", "run__starts_from", "run__rollouts_from", "node"
        ).first()
        if found is None:
            return False
        self.attempt = found
        self.rundir = RunDir(run_dir(found.run_id, found.number))
        me = this_process()
        free = self.row.filter(fence=self.fence, supervisor_pid=None, state__in=LIVE_ATTEMPTS)
        return bool(free.update(supervisor_pid=me.pid, supervisor_started_at=me.started_at, heartbeat_at=Now()))

    def _own(self) -> None:
        row = self.attempt
        self.ingest = Ingest(row, self.rundir, fence=self.fence)
        if row.trainer_pid is not None and row.trainer_started_at is not None:
            ref = ProcessRef(row.trainer_pid, row.trainer_started_at, row.boot_id)
            logger.info("%s: the trainer with pid %s is adopted.", row, ref.pid)
        else:
            end_unrecorded(self.rundir.path)
            try:
                ref = self._start()
            except (ModelCoreError, OSError) as error:
                field = getattr(error, "field", "")
                told = {"type": type(error).__name__, "message": str(error), "field": field}
                attempt_finish(row, fence=self.fence, result={"status": "failed", "error": told}, how=str(error))
                return
        self._follow(ref)

    def _start(self) -> ProcessRef:
        run, rundir = self.attempt.run, self.rundir
        if not rundir.config.exists():
            resume_from = self._resume_from()
            config = RunConfig.parse(self._config(resume_from))
            RunDir.create(rundir.path, run=config, paths=self._paths(resume_from))
        argv = command(rundir.path, num_processes=run.num_processes)
        wanted = environment(num_processes=run.num_processes) | self._devices()
        write_json(rundir.command, {"argv": argv, "environment": wanted})
        inherited = child_environment(os.environ, mark=rundir.path)
        ref = spawn(argv, cwd=Path(__file__).resolve().parents[1], env=inherited | wanted, log=rundir.log)
        try:
            self._move(
                AttemptState.RUNNING, "The trainer is started.", trainer_pid=ref.pid, trainer_started_at=ref.started_at,
                boot_id=boot_id(), started_at=Now(),
            )  # fmt: skip
        except StaleFence:
            stop_group(ref, grace_seconds=1)  # nobody else knows of it
            raise
        return ref

    def _config(self, resume_from: str | None) -> dict[str, Any]:
        """The run's configuration with what is left of its budget; a repetition of a run that was measured takes another seed."""
        run, before = self.attempt.run, self.attempt.run.attempts.filter(number__lt=self.attempt.number)
        num_measured = before.filter(state=AttemptState.SUCCEEDED).count()
        return {**run.config, "seed": run.config["seed"] + num_measured, "budget": budget_left(run, before, resume_from)}

    def _paths(self, resume_from: str | None) -> RunPaths:
        run = self.attempt.run
        return RunPaths(
            dataset=str(version_dir(run.dataset_version_id) / "data") if run.dataset_version_id else None,
            start_from=_existing(run.starts_from),
            rollouts_from=_existing(run.rollouts_from),
            resume_from=resume_from,
            benchmark=str(upload_path(run.benchmark_data_id)) if run.benchmark_data_id else None,
        )

    def _resume_from(self) -> str | None:
        """The newest complete checkpoint since the run was last measured; None to begin at the beginning."""
        before = self.attempt.run.attempts.filter(number__lt=self.attempt.number).order_by("-number")
        for attempt in before:
            if attempt.state == AttemptState.SUCCEEDED:
                return None
            complete = RunDir(run_dir(attempt.run_id, attempt.number)).complete_checkpoints()
            if complete:
                return str(complete[-1])
        return None

    def _devices(self) -> dict[str, str]:
        leases = leases_of(holder_of(self.attempt))
        gpus = [lease.device.index for lease in leases if lease.device.kind == DeviceKind.CUDA]
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}

    def _follow(self, ref: ProcessRef) -> None:
        """Looks after the trainer until it ends."""
        while True:
            try:
                while self.ingest.take():
                    self._note_started()
                    self._beat()
                self._beat()
                if not is_alive(ref):
                    self._ended(ref)
                    return
                if time.monotonic() > self._stop_deadline:
                    stop_group(ref, grace_seconds=KILL_SECONDS)
            except (OperationalError, InterfaceError) as error:
                logger.warning("The database is away: %s. The trainer goes on.", error)
                connection.close()
                time.sleep(1)
            self.ingest.wait(POLL_SECONDS)

    def _note_started(self) -> None:
        run = self.attempt.run
        if self.ingest.started and run.state == RunState.STARTING:
            run.refresh_from_db(fields=["state"])
            if run.state == RunState.STARTING:
                with suppress(IllegalTransition):  # somebody has asked it to stop in this moment
                    run_transition(run=run, to=RunState.RUNNING, reason=f"Attempt {self.attempt.number} trains.")

    def _beat(self) -> None:
        """Reads what is wanted and passes it on; writes the heartbeat. Raises StaleFence."""
        found = self.row.values("fence", "run__desired", "stop_asked_at").first()
        if found is None or found["fence"] != self.fence:
            raise StaleFence("Attempt", self.attempt.pk, self.fence)
        wanted = Desired(found["run__desired"])
        if not self._asked and (wanted != Desired.RUN or found["stop_asked_at"] is not None):
            self._ask_to_stop(WORDS.get(wanted, "The node is shutting down."))
        if time.monotonic() >= self._beat_due:
            self._beat_due = time.monotonic() + BEAT_SECONDS
            if not self.row.filter(fence=self.fence).update(heartbeat_at=Now()):
                raise StaleFence("Attempt", self.attempt.pk, self.fence)

    def _ask_to_stop(self, reason: str) -> None:
        self._asked = True
        self._stop_deadline = time.monotonic() + STOP_SECONDS
        self.rundir.ask_to_stop(reason)
        self._move(AttemptState.STOPPING, reason)
        self.row.filter(fence=self.fence, stop_asked_at=None).update(stop_asked_at=Now())

    def _ended(self, ref: ProcessRef) -> None:
        """The launcher has ended: end what it left, take in the last events, decide."""
        code = exit_code(ref)
        gone = stop_group(ref, grace_seconds=5)
        while self.ingest.take():
            pass
        self._note_started()
        result = self.rundir.read_result()
        how = f"The trainer ended with code {code}." if code is not None else "The trainer ended without a result."
        if not gone:
            left = ", ".join(map(str, group_pids(ref)))
            how = f"These processes cannot be ended: {left}. Its devices stay held."
        attempt_finish(self.attempt, fence=self.fence, result=result, how=how, exit_code=code, proven=gone)

    def _move(self, to: str, reason: str, **fields: Any) -> None:
        if self.attempt.state != to:
            attempt_transition(attempt=self.attempt, to=to, reason=reason, fence=self.fence, fields=fields)


def _existing(checkpoint: Checkpoint | None) -> str | None:
    """The directory of a checkpoint that is complete on this node. Raises CheckpointError."""
    if checkpoint is None:
        return None
    directory = checkpoint_dir(checkpoint)
    if directory not in RunDir(directory.parents[1]).complete_checkpoints():
        raise CheckpointError(
            f"{checkpoint} is not complete on this node: {directory} has no COMPLETE marker. Choose another checkpoint."
        )
    return str(directory)
