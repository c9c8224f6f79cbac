"""Which engine answers: the table of deployments with their ready replicas, and the one of them that suits best.

Revisions get the share of the requests that they are meant to, in turn. Within a revision the same opening goes to the
same replica, which has it in its prefix cache, unless that one is busier than others.

The table is read at most once a second and shared by all requests of this process. A name that is missing, or a replica
that does not answer, has it read anew, so what it says late it never says wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from django.db.models import TextField
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Cast, Coalesce

from serving_app.background import in_database
from serving_app.models import Deployment, Price, Replica
from serving_app.observed import num_devices, traffic
from serving_app.states import DeploymentState, ReplicaState

FRESH_SECONDS = 1.0
COMES_UP = frozenset({DeploymentState.PENDING, DeploymentState.STARTING, DeploymentState.DEGRADED, DeploymentState.READY})
"""States in which a deployment that does not answer yet will."""
CONTEXT = Coalesce(
    KeyTextTransform("max_position_embeddings", KeyTransform("model", "revision__checkpoint__run__config")),
    Cast("revision__imported_model__context", TextField()),
)
"""Where a replica's model says how many tokens prompt and answer may have together."""
STALE_SECONDS = 10.0
"""Between the two ages the table is used once more while it is read anew beside the request."""
SLACK = 4
"""A replica may run so many requests more than the least busy one before the prefix cache is given up for an even load."""
MAX_KEPT = 10_000
"""Revisions whose turn is remembered."""
OPENING_CHARS = 2048
"""How much of a request's beginning says which replica has it in its cache; a request that shares it shares the cache."""


@dataclass(frozen=True)
class Upstream:
    """One ready engine."""

    replica_id: int
    base_url: str
    key: str
    engine: str
    num_devices: int = 1
    revision_id: int = 0
    share: int = 100
    """Percent of the requests that its revision is meant to get."""


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
    may_sleep: bool = False

    @property
    def starts_for_a_request(self) -> bool:
        """Whether a request may wait for it: it sleeps, or is about to come up from it."""
        return self.state == DeploymentState.ASLEEP or (self.may_sleep and self.state in COMES_UP)

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
    return {d.name: _route(d, traffic(ready.get(d.pk, []))) for d in deployments}


def _route(deployment: Deployment, replicas: list[tuple[Replica, int]]) -> Route:
    return Route(
        deployment_id=deployment.pk,
        project_id=deployment.project_id,
        owner=deployment.project.slug,
        name=deployment.name,
        state=deployment.state,
        reason=deployment.state_reason,
        created=int(deployment.created_at.timestamp()),
        upstreams=tuple(
            Upstream(
                r.pk, r.base_url, r.engine_key, r.revision.engine, num_devices=num_devices(r.revision.engine_config),
                revision_id=r.revision_id, share=share,
            )
            for r, share in replicas
        ),
        price=getattr(deployment, "price", None),
        context=_context([replica for replica, _share in replicas]),
        may_sleep=deployment.idle_seconds > 0,
    )


def _context(replicas: list[Replica]) -> int | None:
    """The engine's own setting goes before that of the model; one replica that does not say leaves it unknown."""
    said = [r.revision.engine_config.get("context_length") or getattr(r, "context", None) for r in replicas]
    known = [int(context) for context in said if context]
    return max(known) if known and len(known) == len(said) else None


class Busy:
    """Requests that run on each replica, from this process, and whose turn it is.

    `share` is a clock of each replica that goes n times slower while n requests run on it: the difference of two readings is
    a request's share of the time between, and all shares together are the time in which the replica was at work.
    """

    def __init__(self) -> None:
        self.running: Counter[int] = Counter()
        self._turn = itertools.count()
        self._due: dict[int, int] = {}
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

    def order(self, upstreams: tuple[Upstream, ...], opening: bytes = b"") -> list[Upstream]:
        """All upstreams in the order in which they are to be tried; those of the revision whose turn it is come first."""
        if len(upstreams) < 2:
            return list(upstreams)
        shares = {upstream.revision_id: upstream.share for upstream in upstreams}
        chosen = self._revision(shares) if len(shares) > 1 else upstreams[0].revision_id
        first = next(self._turn) % len(upstreams)
        turned = upstreams[first:] + upstreams[:first]
        least = min(self.running[u.replica_id] for u in upstreams if u.revision_id == chosen)

        def rank(upstream: Upstream) -> tuple[bool, int, int]:
            running = self.running[upstream.replica_id]
            if not opening or running > least + SLACK:
                return upstream.revision_id != chosen, running + SLACK + 1, 0
            return upstream.revision_id != chosen, 0, _place(opening, upstream.replica_id)

        return sorted(turned, key=rank)

    def _revision(self, shares: dict[int, int]) -> int:
        """The revision whose turn it is: of any hundred requests in a row each gets its share, spread evenly."""
        due = {revision: self._due.get(revision, 0) + share for revision, share in shares.items()}
        chosen = max(due, key=lambda revision: due[revision])
        due[chosen] -= sum(shares.values())
        self._due = {**self._due, **due} if len(self._due) < MAX_KEPT else due
        return chosen


def opening_of(body: dict[str, Any]) -> bytes:
    """A digest of what a conversation keeps from turn to turn: its first messages up to the user's first, or the beginning of
    a prompt."""
    said = body.get("messages") or [{"role": "user", "content": body.get("prompt")}]
    turn = next((place for place, message in enumerate(said) if message["role"] == "user"), 0)
    text = "\n".join(str(message["content"]) for message in said[: turn + 1])[:OPENING_CHARS]
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()


def _place(opening: bytes, replica_id: int) -> int:
    """Where a replica stands for an opening; each opening has its own order of replicas, whoever comes and goes."""
    return int.from_bytes(hashlib.blake2b(opening, digest_size=8, key=replica_id.to_bytes(8, "big")).digest(), "big")


TABLE = RoutingTable()
BUSY = Busy()
