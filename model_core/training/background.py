"""A job in a thread of its own, whose error comes out where its result is asked for.

The thread ends with the process: what it had not finished is as if the process had been killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Background:
    """A job under way, from the moment that this is made. Files are what it is for: they let other threads work."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._began = time.monotonic()
        self.seconds = 0.0
        """How long it took, once it is done."""
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether `result` gives or raises something at once."""
        return self._future.done()

    def result(self) -> Any:
        """What the job returned, when it is done; raises what it raised."""
        return self._future.result()

    def error(self) -> BaseException | None:
        """What the job raised, when it is done."""
        return self._future.exception()

    def _work(self, job: Callable[[], Any]) -> None:
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001 - it is raised again in `result`, in the thread that asks.
            self.seconds = time.monotonic() - self._began
            self._future.set_exception(error)
        else:
            self.seconds = time.monotonic() - self._began
            self._future.set_result(result)
