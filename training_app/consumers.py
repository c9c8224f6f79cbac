"""Sockets of training: one run's events without a gap, and the overview's hints.

A run's socket sends what the table holds after the browser's cursor; live messages only say that there is more. So a
lost message, a dropped socket and a restarted server all end the same way: the next reading goes on from the cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import parse_qs

from django.contrib.auth.models import User

from r1platform.access import for_user
from r1platform.lib.live import NOT_FOUND, LiveConsumer, Refused
from r1platform.models import Project
from training_app.models import PhaseRun
from training_app.selectors.runs import run_events

PAGE = 500
LOOK_SECONDS = 3.0
"""A message that was lost delays its events by at most this."""


class RunConsumer(LiveConsumer):
    """`/ws/runs/<id>/?after=<event id>`: hello, every event after it, then what comes."""

    run: PhaseRun
    after = 0
    _wanted: asyncio.Event
    _pump: asyncio.Task[None] | None = None

    def authorise(self, user: User) -> list[str]:
        run_id = int(self.scope["url_route"]["kwargs"]["run_id"])
        found = for_user(PhaseRun.objects.all(), user).filter(pk=run_id).first()
        if found is None:
            raise Refused(NOT_FOUND)
        self.run = found
        return [f"run.{run_id}"]

    async def opened(self) -> None:
        given = parse_qs(self.scope["query_string"].decode(errors="replace")).get("after", ["0"])[-1]
        self.after = int(given) if given.isascii() and given.isdigit() and len(given) < 18 else 0
        self._wanted = asyncio.Event()
        self._wanted.set()
        await self._hello()
        self._pump = asyncio.create_task(self._pumping())

    async def live(self, message: dict[str, Any]) -> None:
        if self._pump is None:
            return
        if message["kind"] == "events":
            self._wanted.set()
        else:
            await super().live(message)

    async def disconnect(self, code: int) -> None:
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        await super().disconnect(code)

    async def _hello(self) -> None:
        run = self.run
        newest = await run.events.order_by("-pk").values_list("pk", flat=True).afirst()
        state = {
            "state": run.state, "reason": run.state_reason, "waiting_reason": run.waiting_reason, "progress": run.progress,
            "summary": run.summary, "gate_verdict": run.gate_verdict,
        }  # fmt: skip
        await self.send_json({"type": "hello", "last_id": newest or 0, "state": state})

    async def _pumping(self) -> None:
        """Sends what is new whenever there may be more."""
        while True:
            self._wanted.clear()
            while events := await self.patiently(run_events, self.run, after=self.after, limit=PAGE):
                for event in events:
                    await self.send_json({"type": "event", **event})
                self.after = events[-1]["id"]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), LOOK_SECONDS)


class OverviewConsumer(LiveConsumer):
    """`/ws/overview/`: that something changed in one of the user's projects; pages then ask for their parts."""

    def authorise(self, user: User) -> list[str]:
        projects = for_user(Project.objects.all(), user, path="").values_list("pk", flat=True)
        return [f"overview.{pk}" for pk in projects]

    async def opened(self) -> None:
        await self.send_json({"type": "hello"})
