"""One request from its first byte to its end: counted into the limits, written down while it runs, counted out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine
from typing import Any

from serving_app.gateway.auth import Caller
from serving_app.gateway.limits import Slot
from serving_app.gateway.proxying import Exchange
from serving_app.gateway.routing import Route
from serving_app.gateway.spending import Used, cost_of
from serving_app.gateway.usage import USAGE
from serving_app.models import UsageRecord

CLIENT_LEFT = 499


class Booking:
    """One request in the limits and in the usage; closed exactly once, however it ends."""

    def __init__(self, caller: Caller, route: Route, slot: Slot, request_id: uuid.UUID) -> None:
        self.caller, self.route, self.slot = caller, route, slot
        self.request_id = request_id
        self.started = time.monotonic()
        self.exchange: Exchange | None = None
        self.revision_id: int | None = None
        """Of the revision that refused or broke off before there was an exchange."""
        self._open = True
        USAGE.watch(self.request_id, self.record)

    def abandon(self) -> None:
        """Ends what has not ended: the client has left before its stream began."""
        if self._open:
            exchange = self.exchange
            self.close(CLIENT_LEFT)
            if exchange is not None:
                _in_background(exchange.close())

    def close(self, status: int) -> None:
        """Counts the request out and writes down what it used."""
        if not self._open:
            return
        self._open = False
        record = self.record(status)
        self.slot.leave(record.prompt_tokens + record.completion_tokens, record.cost_dollars)
        USAGE.add(record)

    def record(self, status: int = UsageRecord.RUNNING) -> UsageRecord:
        """What it has used so far."""
        exchange = self.exchange
        used = Used.of(exchange.usage_so_far, exchange.device_seconds) if exchange is not None else Used()
        return usage_record(
            self.route, used, request_id=self.request_id, api_key_id=self.caller.key_id, user_id=self.caller.user_id,
            status=status, ttft_seconds=exchange.ttft_seconds if exchange is not None else None,
            revision_id=exchange.upstream.revision_id if exchange is not None else self.revision_id,
            seconds=time.monotonic() - self.started,
        )  # fmt: skip


def usage_record(route: Route, used: Used, **fields: Any) -> UsageRecord:
    """The row of one request to a route."""
    return UsageRecord(
        project_id=route.project_id,
        deployment_id=route.deployment_id,
        model_name=route.name,
        prompt_tokens=used.prompt_tokens,
        cached_tokens=used.cached_tokens,
        completion_tokens=used.completion_tokens,
        reasoning_tokens=used.reasoning_tokens,
        device_seconds=used.device_seconds,
        cost_dollars=cost_of(route.price, used),
        **fields,
    )


_background: set[asyncio.Task[None]] = set()
"""Keeps tasks that nobody waits for until they are done."""


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
