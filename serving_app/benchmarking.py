"""Starting benchmarks of deployments, each in a process of its own, and ending those whose process is gone.

The process (`benchmark_runner`) is the load itself, so nobody can adopt it: when it dies the benchmark is lost, and the levels that
were done stay. One at a time runs on a node, and one of a deployment, for two would measure each other.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from r1platform.lib.leases import NODE_ALIVE, leases_of
from r1platform.lib.processes import spawn, started_at
from r1platform.lib.storage import home
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Node
from serving_app.models import DeploymentBenchmark, DeploymentRevision, Replica
from serving_app.placement import holder_of
from serving_app.states import BenchmarkState, ReplicaState
from serving_app.transitions import benchmark_transition

logger = logging.getLogger(__name__)
SILENT = timedelta(seconds=15)
"""A process that has not begun for so long never will."""
LOST = timedelta(seconds=150)
"""After this long without its node a benchmark is given up."""
_POLL_SECONDS = 0.1


def answering(revision: DeploymentRevision) -> QuerySet[Replica]:
    """Replicas of the revision that answer, whether or not requests of people go to them."""
    return revision.replicas.filter(state=ReplicaState.READY, stop_wanted=False).order_by("number")


def benchmarks_start() -> int:
    """Starts the first queued benchmark that this node can run; the others say why they wait. Returns how many."""
    node = Node.objects.filter(name=settings.R1_NODE_NAME, draining=False).first()
    if node is None:
        return 0
    started = 0
    with transaction.atomic():
        queued = DeploymentBenchmark.objects.select_for_update(of=("self",), skip_locked=True).filter(state=BenchmarkState.QUEUED)
        for benchmark in queued.select_related("deployment", "revision").order_by("pk"):
            why = _why_not(benchmark, node)
            if not why and not _start(benchmark, node):
                why = "Another one of this deployment has just begun."
            if why and why != benchmark.waiting_reason:
                DeploymentBenchmark.objects.filter(pk=benchmark.pk).update(waiting_reason=why)
            started += not why
    return started


def benchmarks_reconcile() -> int:
    """Ends benchmarks whose process is gone, with what is known of it; returns how many."""
    running = DeploymentBenchmark.objects.filter(state=BenchmarkState.RUNNING).select_related("deployment", "node")
    here = running.filter(node__name=settings.R1_NODE_NAME)
    gone = [one for one in here.exclude(pid=None) if not is_running(one)]
    gone += here.filter(Q(heartbeat_at__lt=Now() - SILENT) | Q(heartbeat_at=None), pid=None)
    for benchmark in gone:
        _lose(benchmark, f"Its process on {settings.R1_NODE_NAME} ended before it was done.")
    elsewhere = running.exclude(node__name=settings.R1_NODE_NAME).exclude(node__heartbeat_at__gt=Now() - NODE_ALIVE)
    silent = list(elsewhere.filter(heartbeat_at__lt=Now() - LOST))
    for benchmark in silent:
        _lose(benchmark, f"{benchmark.node.name if benchmark.node else 'Its node'} has not been heard of.")
    return len(gone) + len(silent)


def benchmarks_release(*, seconds: float = 10.0) -> bool:
    """Stops the benchmarks of this node, which is shutting down; says whether their processes are gone."""
    mine = DeploymentBenchmark.objects.filter(state=BenchmarkState.RUNNING, node__name=settings.R1_NODE_NAME)
    stopped = list(mine.select_related("deployment"))
    for benchmark in stopped:
        with suppress(IllegalTransition):  # it has ended in this moment
            reason = f"The node {settings.R1_NODE_NAME} was shut down. {kept_words(benchmark)}"
            benchmark_transition(benchmark=benchmark, to=BenchmarkState.STOPPED, reason=reason)
    deadline = time.monotonic() + seconds
    while any(is_running(benchmark) for benchmark in stopped):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def is_running(benchmark: DeploymentBenchmark) -> bool:
    """Whether the process that the row named when it was read runs here."""
    return benchmark.pid is not None and started_at(benchmark.pid) == benchmark.process_started_at


def kept_words(benchmark: DeploymentBenchmark) -> str:
    """What stays of it when it ends early."""
    done = benchmark.levels.count()
    if not done:
        return "No level was done."
    return f"{'The level that was' if done == 1 else f'The {done} levels that were'} done {'is' if done == 1 else 'are'} kept."


def hardware_of(replicas: list[Replica]) -> dict[str, object]:
    """What the replicas run on, as it is now."""
    nodes = {replica.node.name: replica.node.hardware for replica in replicas if replica.node is not None}
    told = [
        {"number": replica.number, "node": replica.node.name if replica.node else "",
         "devices": [lease.device.name for lease in leases_of(holder_of(replica))]}
        for replica in replicas
    ]  # fmt: skip
    names = ("cpu", "num_cpus", "memory_bytes")
    return {"replicas": told, "nodes": {name: {key: of[key] for key in names if key in of} for name, of in nodes.items()}}


def _why_not(benchmark: DeploymentBenchmark, node: Node) -> str:
    running = DeploymentBenchmark.objects.filter(state=BenchmarkState.RUNNING)
    first = running.filter(Q(node=node) | Q(deployment=benchmark.deployment_id)).order_by("pk").first()
    if first is None:
        return ""
    if first.deployment_id == benchmark.deployment_id:
        return f"Waits for benchmark {first.pk} of this deployment: two at once would measure each other."
    return f"Waits for another benchmark on {node.name}: two at once would measure each other."


def _start(benchmark: DeploymentBenchmark, node: Node) -> bool:
    """Hands it to a process of this node; False when another node has just begun one of the same deployment."""
    try:
        with transaction.atomic():
            benchmark_transition(
                benchmark=benchmark, to=BenchmarkState.RUNNING, reason=f"The load is made on {node.name}.",
                fields={"node": node, "heartbeat_at": Now(), "pid": None},
            )  # fmt: skip
            _spawn(benchmark)
    except IntegrityError:
        return False
    return True


def _spawn(benchmark: DeploymentBenchmark) -> None:
    argv = [sys.executable, "manage.py", "run_benchmark", str(benchmark.pk)]
    log = home() / "logs" / f"benchmark-{benchmark.pk}.log"
    transaction.on_commit(lambda: spawn(argv, cwd=settings.BASE_DIR, env=os.environ, log=log) and None)


def _lose(benchmark: DeploymentBenchmark, why: str) -> None:
    with suppress(IllegalTransition):  # it has told its end in this moment
        benchmark_transition(benchmark=benchmark, to=BenchmarkState.LOST, reason=f"{why} {kept_words(benchmark)}")
        logger.warning("%s: %s", benchmark, why)
