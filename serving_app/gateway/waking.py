"""The queue of requests for a model that sleeps: the first wakes it, all wait until it answers or the limit is over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from serving_app.background import in_database
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.routing import TABLE, Route
from serving_app.sleeping import deployment_wake
from serving_app.states import DeploymentState

WAKE_SECONDS = 120.0
"""How long a request waits for its model to start."""
MAX_WAITING = 64
"""Requests of one model that may wait in this process."""
RETRY_SECONDS = 10
POLL_SECONDS = 0.25
_waiting: Counter[int] = Counter()


async def awake(route: Route) -> Route:
    """The route once a replica of it is ready. Raises GatewayError 503 with the time to wait when the queue is full, the
    start takes too long, or it comes to nothing."""
    if _waiting[route.deployment_id] >= MAX_WAITING:
        message = f"{MAX_WAITING} requests wait for “{route.name}” to start already. Try again in {RETRY_SECONDS} s."
        raise GatewayError(503, message, code="model_not_ready", retry_after=RETRY_SECONDS)
    _waiting[route.deployment_id] += 1
    try:
        return await _wait(route)
    finally:
        _waiting[route.deployment_id] -= 1


async def _wait(route: Route) -> Route:
    deadline = time.monotonic() + WAKE_SECONDS
    found: Route | None = route
    while found is not None and found.starts_for_a_request:
        if found.upstreams:
            return found
        if time.monotonic() > deadline:
            break
        if found.state == DeploymentState.ASLEEP:
            await in_database(deployment_wake, found.deployment_id)
            TABLE.expire()
        await asyncio.sleep(POLL_SECONDS)
        found = await TABLE.get(route.name)
    if found is not None and found.upstreams:
        return found
    raise GatewayError(503, (found or route).why_not, code="model_not_ready", retry_after=RETRY_SECONDS)
