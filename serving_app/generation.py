"""Answers of the playground. They belong to this web process, not to a socket or a request.

Each is a task in an event loop of its own thread: it asks the engine as the gateway does, and every 200 ms writes what
came to the message and then tells the sockets. So the row is never behind what a browser was shown, and a page that
comes back reads the row and follows from its `seq`. When the process dies, `tasks.reap_answers` says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any

from serving_app.answer import Answer, stopped_early
from serving_app.gateway.limits import Slot
from serving_app.gateway.proxying import close_client

logger = logging.getLogger(__name__)


class GenerationLoop:
    """An event loop in a daemon thread, with the answers that are being written in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, message_id: int, slot: Slot | None = None) -> None:
        """Begins to write an answer that is queued; returns at once, from any thread.

        With the slot of an API key the answer is booked on that key, and counted out of its limits when it ends.
        """
        self._soon(self._begin, message_id, slot)

    def cancel(self, message_id: int) -> None:
        """Ends an answer that is written here; what is there is kept. Elsewhere `stop_wanted` does it."""
        self._soon(self._cancel, message_id)

    def wait(self, message_id: int, *, seconds: float) -> bool:
        """Whether the answer has ended here, or was never written here, within `seconds`."""
        task = self._tasks.get(message_id)
        if task is None or self._loop is None:
            return True
        done = asyncio.run_coroutine_threadsafe(_settled(task), self._loop)
        try:
            done.result(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def release(self) -> None:
        """Closes the HTTP client of the loop; it comes back by itself. For tests, which end with nothing open."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(close_client(), self._loop).result(timeout=10)

    def _soon(self, function: Any, *args: Any) -> None:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="generation", daemon=True).start()
        self._loop.call_soon_threadsafe(function, *args)

    def _begin(self, message_id: int, slot: Slot | None) -> None:
        if message_id not in self._tasks:
            task = self._tasks[message_id] = self._task(Answer(message_id, slot).write())
            task.add_done_callback(lambda task: self._ended(message_id, slot, task))

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None
        return self._loop.create_task(work)

    def _cancel(self, message_id: int) -> None:
        if (task := self._tasks.get(message_id)) is not None:
            task.cancel()

    def _ended(self, message_id: int, slot: Slot | None, task: asyncio.Task[None]) -> None:
        """One that was cancelled before its first step could not say so itself; it is ended here."""
        self._tasks.pop(message_id, None)
        if slot is not None:
            slot.leave()
        if task.cancelled():
            last = self._tasks[message_id] = self._task(stopped_early(message_id))
            last.add_done_callback(lambda task: self._ended(message_id, None, task))
        elif (error := task.exception()) is not None:
            logger.error("Answer %s was given up.", message_id, exc_info=error)


async def _settled(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


_ANSWERS = GenerationLoop()
start = _ANSWERS.start
cancel = _ANSWERS.cancel
wait = _ANSWERS.wait
release = _ANSWERS.release
