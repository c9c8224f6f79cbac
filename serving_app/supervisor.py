"""Owns one engine process on its node: starts or adopts it, keeps the replica's row true, ends it when asked.

Every write carries the fence. A supervisor that is told of a newer owner ends itself and leaves the engine alone; one
that loses the database keeps its engine and goes on when it is back. Probing runs in a thread, so that a slow engine
never delays the heartbeat. A replica that was lost with its node is only cleared away: its engine ended, its devices freed.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now

from model_core.errors import MachineError, ModelCoreError
from model_core.published import Unhashed
from model_core.serving.engines import ENGINES
from model_core.serving.protocol import given_up
from r1platform.lib.leases import leases_of, leases_release
from r1platform.lib.processes import (
    ProcessRef,
    end_unrecorded,
    exit_code,
    group_pids,
    is_alive,
    stop_group,
    this_process,
)
from r1platform.lib.storage import replica_dir
from r1platform.lib.tail import last_words
from r1platform.lib.transitions import IllegalTransition, StaleFence
from serving_app.artifacts import served_dir
from serving_app.engine_process import answers, bind_address, start_engine
from serving_app.gateway.routing import FRESH_SECONDS
from serving_app.models import Replica
from serving_app.placement import holder_of
from serving_app.states import REPLICA_ENDS, ReplicaState
from serving_app.transitions import replica_transition

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.25
PROBE_SECONDS = 2.0
"""Pause between two looks at an engine that is ready; one that starts is asked at every poll."""
STARTUP_SECONDS = 1800
MISSES_ALLOWED = 3
HUNG_SECONDS = 120
"""An engine that has not answered for so long while its process lives is ended and replaced."""
SEEN_SECONDS = 2 * FRESH_SECONDS
"""After so long every web process that has traffic has read a table without this replica."""
_PHASES = [ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.WARMING, ReplicaState.READY]


class ReplicaSupervisor:
    """One supervisor of one replica under one fence; `run` returns when there is nothing left to own."""

    def __init__(self, replica_id: int, *, fence: int) -> None:
        self.fence = fence
        self.row = Replica.objects.filter(pk=replica_id)
        self.directory = replica_dir(replica_id)
        self.metrics: dict[str, Any] = {}
        self.misses = 0
        self.missing_since = 0.0
        self.refused = ""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._probe: Future[Any] | None = None
        self._probe_due = 0.0
        self._beat_due = 0.0
        self._told_due = 0.0

    def run(self) -> None:
        """Owns the engine until it has ended, or until a newer supervisor has taken over."""
        try:
            if not self._claim():
                return
            if self.replica.state == ReplicaState.LOST:
                self._clear_away()
            else:
                self._own()
        except StaleFence:
            logger.info("Replica %s has a newer supervisor than fence %s; this one ends.", self.replica.pk, self.fence)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _claim(self) -> bool:
        found = self.row.select_related(
            "node", "revision__deployment", "revision__checkpoint__attempt", "revision__imported_model"
        ).first()
        if found is None:
            return False
        self.replica = found
        self.engine = ENGINES.get(found.revision.engine)()
        me = this_process()
        ended = REPLICA_ENDS - {ReplicaState.LOST}
        free = self.row.filter(fence=self.fence, supervisor_pid=None).exclude(state__in=ended)
        return bool(
            free.update(
                supervisor_pid=me.pid, supervisor_started_at=me.started_at, boot_id=me.boot_id, heartbeat_at=Now()
            )
        )

    def _own(self) -> None:
        row, ref = self.replica, self._recorded()
        if ref is not None:
            logger.info("Replica %s: the engine with pid %s is adopted.", row.pk, ref.pid)
        else:
            end_unrecorded(self.directory)
            if row.stop_wanted:
                self._finish(ReplicaState.STOPPED, row.state_reason)
                return
            try:
                ref = self._start()
            except (ModelCoreError, OSError) as error:
                self._finish(ReplicaState.FAILED, str(error), permanent=True)
                return
            except Unhashed:
                row.refresh_from_db(fields=["state_reason"])
                self._finish(ReplicaState.STOPPED, row.state_reason)
                return
        self._follow(ref)

    def _recorded(self) -> ProcessRef | None:
        row = self.replica
        if row.engine_pid is None or row.engine_started_at is None:
            return None
        return ProcessRef(row.engine_pid, row.engine_started_at, row.boot_id)

    def _clear_away(self) -> None:
        """Ends what a lost replica has left on this node; only then are its devices free."""
        ref = self._recorded()
        end_unrecorded(self.directory)
        if ref is None or stop_group(ref, grace_seconds=float(self.engine.stop_grace_seconds)):
            self._write(engine_pid=None, engine_started_at=None)
            leases_release(holder=holder_of(self.replica))
            return
        left = ", ".join(map(str, group_pids(ref)))
        self._write(state_reason=f"These processes cannot be ended: {left}. Its devices stay held.")

    def _start(self) -> ProcessRef:
        revision = self.replica.revision
        if why := self.engine.installed():
            raise MachineError(why)
        leases = leases_of(holder_of(self.replica))
        assert self.replica.node is not None, "a replica is placed before it is supervised"
        started = start_engine(
            self.engine,
            directory=self.directory,
            model_dir=served_dir(revision.served.artifact, told=self._compare),
            served_name=revision.deployment.name,
            config=self.engine.Config.parse(revision.engine_config, prefix="engine_config"),
            host=bind_address(self.replica.node.address),
            devices=[lease.device.index for lease in leases] if leases else None,
        )
        self._write(
            engine_pid=started.ref.pid, engine_started_at=started.ref.started_at, base_url=started.base_url,
            engine_key=started.key,
        )  # fmt: skip
        self.replica.base_url, self.replica.engine_key = started.base_url, started.key
        return started.ref

    def _compare(self, done: int, of: int) -> bool:
        """While files are compared with the approved ones: beats, says how far it is, and whether it is still to be started."""
        try:
            self._beat()
            if time.monotonic() >= self._told_due and not self.replica.stop_wanted:
                self._told_due = time.monotonic() + PROBE_SECONDS
                self._write(state_reason=f"Its files are compared with the approved ones: {done / max(1, of):.0%}.")
        except (OperationalError, InterfaceError) as error:
            logger.warning("The database is away: %s. The files are compared on.", error)
            connection.close()
        return not self.replica.stop_wanted and self.replica.state not in REPLICA_ENDS

    def _follow(self, ref: ProcessRef) -> None:
        """Looks after the engine until it ends, is asked to end, or hangs."""
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                self._beat()
                if not is_alive(ref):
                    self._died(ref)
                    return
                if self.replica.stop_wanted or self.replica.state in REPLICA_ENDS:
                    self._end(ref)
                    return
                self._look()
                if why := self._stuck(deadline):
                    self._end(ref, ReplicaState.FAILED, why)
                    return
            except (OperationalError, InterfaceError) as error:
                logger.warning("The database is away: %s. The engine goes on.", error)
                connection.close()
            time.sleep(POLL_SECONDS)

    def _beat(self) -> None:
        """Reads what is wanted; writes heartbeat and metrics every two seconds. Raises StaleFence."""
        found = self.row.values("fence", "stop_wanted", "state", "drain_seconds").first()
        if found is None or found["fence"] != self.fence:
            raise StaleFence("Replica", self.replica.pk, self.fence)
        self.replica.stop_wanted, self.replica.state = found["stop_wanted"], found["state"]
        self.replica.drain_seconds = found["drain_seconds"]
        if time.monotonic() >= self._beat_due:
            self._write(heartbeat_at=Now(), metrics=self.metrics)
            self._beat_due = time.monotonic() + PROBE_SECONDS

    def _look(self) -> None:
        """Takes in the probe that has finished and begins the next."""
        if self._probe is not None and self._probe.done():
            result, self._probe = self._probe.result(), None
            if self.replica.state in _PHASES[:-1]:
                self._advance(result)
            else:
                self._heard(result)
        if self._probe is None and time.monotonic() >= self._probe_due:
            starting = self.replica.state in _PHASES[:-1]
            self._probe_due = time.monotonic() + (POLL_SECONDS if starting else PROBE_SECONDS)
            self._probe = self._threads.submit(self._ask_ready if starting else self._ask_health)

    def _ask_ready(self) -> Any:
        row = self.replica
        return self.engine.is_ready(row.base_url, row.engine_key, row.revision.deployment.name)

    def _ask_health(self) -> dict[str, Any] | None:
        """Metrics of an engine that answers, None of one that does not."""
        if not answers(self.replica.base_url, self.replica.engine_key):
            return None
        return dict(self.engine.read_metrics(self.replica.base_url))

    def _advance(self, readiness: Any) -> None:
        """Walks the states up to the phase that the engine is in, and keeps the detail beside it."""
        if readiness.phase == ReplicaState.FAILED:
            self.refused = readiness.detail or "The engine says that it has failed."
            return
        wanted, current = _PHASES.index(ReplicaState(readiness.phase)), _PHASES.index(ReplicaState(self.replica.state))
        for phase in _PHASES[current + 1 : wanted + 1]:
            reason = "It has generated a first token." if phase == ReplicaState.READY else readiness.detail
            self._move(phase, reason)
        if wanted <= current and readiness.detail:
            self._write(state_reason=readiness.detail)

    def _heard(self, metrics: dict[str, Any] | None) -> None:
        """Counts misses: three in a row are unreachable, one answer is ready again."""
        if metrics is not None:
            self.metrics, self.misses = metrics, 0
            if self.replica.state == ReplicaState.UNREACHABLE:
                self._move(ReplicaState.READY, "It answers again.")
            return
        self.missing_since = self.missing_since if self.misses else time.monotonic()
        self.misses += 1
        if self.misses == MISSES_ALLOWED and self.replica.state == ReplicaState.READY:
            self._move(ReplicaState.UNREACHABLE, f"It has not answered {MISSES_ALLOWED} times; its process still runs.")

    def _stuck(self, deadline: float) -> str:
        if self.refused:
            return self.refused
        if self.replica.state in _PHASES[:-1] and time.monotonic() > deadline:
            return (
                f"It was not ready after {STARTUP_SECONDS // 60} minutes.\n{last_words(self.directory / 'engine.log')}"
            )
        if self.misses >= MISSES_ALLOWED and time.monotonic() - self.missing_since > HUNG_SECONDS:
            return f"It has not answered for {HUNG_SECONDS} seconds while its process ran, so it was ended."
        return ""

    def _died(self, ref: ProcessRef) -> None:
        code = exit_code(ref)
        how = f"The engine ended with code {code}." if code is not None else "The engine ended by itself."
        stop_group(ref, grace_seconds=2)
        if self.replica.stop_wanted:
            self._finish(ReplicaState.STOPPED, self.replica.state_reason)
        else:
            self._finish(ReplicaState.FAILED, f"{how}\n{last_words(self.directory / 'engine.log')}".strip())

    def _end(self, ref: ProcessRef, to: str = ReplicaState.STOPPED, reason: str = "") -> None:
        """No new requests, the running ones to their end, then SIGTERM, grace, SIGKILL, and proof."""
        self.replica.refresh_from_db(fields=["state_reason"])
        reason = reason or self.replica.state_reason
        had_traffic = self.replica.ready_at is not None or self.replica.state in {ReplicaState.READY, ReplicaState.UNREACHABLE}
        if self.replica.state not in REPLICA_ENDS:
            self._move(ReplicaState.STOPPING, reason)
        if to == ReplicaState.STOPPED and had_traffic:
            self._drain(ref)
        grace = float(self.engine.stop_grace_seconds)
        ending = self._threads.submit(stop_group, ref, grace_seconds=grace)
        while not ending.done():
            self._beat()
            time.sleep(0.05)
        if not ending.result():
            left = ", ".join(map(str, group_pids(ref)))
            self._finish(
                ReplicaState.FAILED, f"These processes cannot be ended: {left}. Its devices stay held.", proven=False
            )
            return
        self._finish(to, reason)

    def _drain(self, ref: ProcessRef) -> None:
        """Waits until no web process sends requests here any more, then while the engine reports some that run."""
        seen = time.monotonic() + SEEN_SECONDS
        while time.monotonic() < seen and is_alive(ref):
            self._beat()
            time.sleep(0.05)
        began = time.monotonic()
        while time.monotonic() < began + self.replica.drain_seconds and is_alive(ref):
            asked = self._threads.submit(self._ask_health)
            while not asked.done():
                self._beat()
                time.sleep(0.05)
            metrics = asked.result() or {}
            if not metrics.get("running") and not metrics.get("queued"):
                return
            time.sleep(POLL_SECONDS)

    def _finish(self, to: str, reason: str, *, permanent: bool = False, proven: bool = True) -> None:
        """The last word on this replica; devices are free only after the proof. What the engine gave up on stays so."""
        if proven:
            leases_release(holder=holder_of(self.replica))
        if to == ReplicaState.FAILED and (sentence := given_up(last_words(self.directory / "engine.log"))):
            reason, permanent = sentence, True
        try:
            if to == ReplicaState.STOPPED and self.replica.state not in {ReplicaState.STOPPING, *REPLICA_ENDS}:
                self._move(ReplicaState.STOPPING, reason)
            self._move(to, reason, permanent=permanent, metrics={})
        except IllegalTransition as error:
            logger.info("%s", error)

    def _move(self, to: str, reason: str, **fields: Any) -> None:
        replica_transition(replica=self.replica, to=to, reason=reason, fence=self.fence, fields=fields)
        self.replica.state = to

    def _write(self, **fields: Any) -> None:
        """Sets columns that are not the state, under the fence. Raises StaleFence."""
        if not self.row.filter(fence=self.fence).update(**fields):
            raise StaleFence("Replica", self.replica.pk, self.fence)
