"""Which engine answers: the table of deployments with their ready replicas, and the least busy one of them.

The table is read at most once a second and shared by all requests of this process. A name that is missing, or a replica
that does not answer, has it read anew, so what it says late it never says wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from django.db.models.fields.json import KeyTextTransform, KeyTransform

from serving_app.background import in_database
from serving_app.models import Deployment, Price, Replica
from serving_app.observed import num_devices, traffic
from serving_app.states import DeploymentState, ReplicaState

FRESH_SECONDS = 1.0
CONTEXT = KeyTextTransform("max_position_embeddings", KeyTransform("model", "revision__checkpoint__run__config"))
"""Where a replica's model says how many tokens prompt and answer may have together."""
STALE_SECONDS = 10.0
"""Between the two ages the table is used once more while it is read anew beside the request."""


@dataclass(frozen=True)
class Upstream:
    """One ready engine."""

    replica_id: int
    base_url: str
    key: str
    engine: str
    num_devices: int = 1


@dataclass(frozen=True)
class Route:
    """One deployment as the gateway sees it."""

    deployment_id: int
    project_id: int
    owner: str
    name: str
    state: str
    reason: str
    created: int
    upstreams: tuple[Upstream, ...]
    price: Price | None = None
    context: int | None = None
    """Tokens that prompt and answer may have together, by the largest of the models that answer; None: not known."""

    @property
    def why_not(self) -> str:
        """Why nobody answers, as a sentence with the remedy."""
        label = DeploymentState(self.state).label.lower()
        detail = f" {self.reason}" if self.reason else ""
        if self.state in {DeploymentState.STOPPED, DeploymentState.STOPPING, DeploymentState.FAILED}:
            return f"“{self.name}” is {label}.{detail} Start it on its page."
        return f"“{self.name}” is {label}.{detail} Try again in a few seconds."


class RoutingTable:
    """Routes by model name, read from the database when they are old."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._read_at = float("-inf")
        self._reading: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()

    async def get(self, name: str) -> Route | None:
        """The route of a model that exists and is not deleted."""
        age = time.monotonic() - self._read_at
        route = self._routes.get(name)
        if age > STALE_SECONDS or ((route is None or not route.upstreams) and age > 0):
            await self._read()
        elif age > FRESH_SECONDS:
            self._begin()
        return self._routes.get(name)

    async def anew(self, name: str) -> Route | None:
        """The route as the database has it now."""
        asked = time.monotonic()
        while self._read_at < asked:
            await self._read()
        return self._routes.get(name)

    async def all(self) -> list[Route]:
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            await self._read()
        return list(self._routes.values())

    def expire(self) -> None:
        """Has the next request read the table."""
        self._read_at = float("-inf")

    async def _read(self) -> None:
        await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[None]:
        """The reading that is under way in this loop, or a new one."""
        loop = asyncio.get_running_loop()
        task = self._reading.get(loop)
        if task is None or task.done():
            task = self._reading[loop] = loop.create_task(self._load())
            task.add_done_callback(_heard)
        return task

    async def _load(self) -> None:
        at = time.monotonic()
        self._routes = await in_database(read_routes)
        self._read_at = at


def _heard(task: asyncio.Task[None]) -> None:
    """A reading that fails fails who waits for it; one that nobody waits for is tried again by the next request."""
    if not task.cancelled():
        task.exception()


def read_routes() -> dict[str, Route]:
    """Every deployment that is not deleted, with the replicas that traffic goes to; two queries."""
    ready: dict[int, list[Replica]] = {}
    rows = Replica.objects.filter(state=ReplicaState.READY, revision__deployment__deleted_at=None)
    for replica in rows.select_related("revision").annotate(context=CONTEXT):
        ready.setdefault(replica.revision.deployment_id, []).append(replica)
    deployments = Deployment.objects.filter(deleted_at=None).select_related("project", "price")
    return {d.name: _route(d, traffic(d, ready.get(d.pk, []))) for d in deployments}


def _route(deployment: Deployment, replicas: list[Replica]) -> Route:
    return Route(
        deployment_id=deployment.pk,
        project_id=deployment.project_id,
        owner=deployment.project.slug,
        name=deployment.name,
        state=deployment.state,
        reason=deployment.state_reason,
        created=int(deployment.created_at.timestamp()),
        upstreams=tuple(
            Upstream(r.pk, r.base_url, r.engine_key, r.revision.engine, num_devices(r.revision.engine_config)) for r in replicas
        ),
        price=getattr(deployment, "price", None),
        context=_context(replicas),
    )


def _context(replicas: list[Replica]) -> int | None:
    """The engine's own setting goes before that of the model; one replica that does not say leaves it unknown."""
    said = [r.revision.engine_config.get("context_length") or getattr(r, "context", None) for r in replicas]
    known = [int(context) for context in said if context]
    return max(known) if known and len(known) == len(said) else None


class Busy:
    """Requests that run on each replica, from this process; the least busy goes first, in turn among equals.

    `share` is a clock of each replica that goes n times slower while n requests run on it: the difference of two readings is
    a request's share of the time between, and all shares together are the time in which the replica was at work.
    """

    def __init__(self) -> None:
        self.running: Counter[int] = Counter()
        self._turn = itertools.count()
        self._clocks: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def enter(self, replica_id: int) -> float:
        """Counts a request in and reads the replica's clock."""
        return self._count(replica_id, 1)

    def leave(self, replica_id: int) -> float:
        """Counts it out and reads the clock."""
        return self._count(replica_id, -1)

    def share(self, replica_id: int) -> float:
        """Seconds on the replica's clock."""
        return self._count(replica_id, 0)

    def _count(self, replica_id: int, change: int) -> float:
        with self._lock:
            now, running = time.monotonic(), self.running[replica_id]
            share, at = self._clocks.get(replica_id, (0.0, now))
            share += (now - at) / running if running else 0.0
            self._clocks[replica_id] = share, now
            self.running[replica_id] = running + change
            return share

    def order(self, upstreams: tuple[Upstream, ...]) -> list[Upstream]:
        """All upstreams in the order in which they are to be tried."""
        if len(upstreams) < 2:
            return list(upstreams)
        first = next(self._turn) % len(upstreams)
        turned = upstreams[first:] + upstreams[:first]
        return sorted(turned, key=lambda upstream: self.running[upstream.replica_id])


TABLE = RoutingTable()
BUSY = Busy()
