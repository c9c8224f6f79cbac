"""How much one key may ask for: requests a minute and at the same time, counted in this web process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from serving_app.gateway.errors import GatewayError

MAX_KEPT = 10_000


@dataclass
class _Count:
    running: int = 0
    tokens: float = 0.0
    at: float = field(default_factory=time.monotonic)


class Limits:
    """A token bucket and a count of running requests for each key."""

    def __init__(self, *, requests_per_minute: int, concurrent: int) -> None:
        self.requests_per_minute = requests_per_minute
        self.concurrent = concurrent
        self._counts: dict[int, _Count] = {}
        self._lock = threading.Lock()

    def enter(self, key_id: int) -> None:
        """Counts a request in, from any thread. Raises GatewayError 429 with the time to wait."""
        with self._lock:
            self._enter(key_id)

    def running(self, key_id: int) -> int:
        """Requests of the key that have not left."""
        count = self._counts.get(key_id)
        return count.running if count is not None else 0

    def leave(self, key_id: int) -> None:
        """Counts it out again."""
        with self._lock:
            if (count := self._counts.get(key_id)) is not None:
                count.running -= 1

    def _enter(self, key_id: int) -> None:
        now = time.monotonic()
        count = self._counts.get(key_id)
        if count is None:
            self._forget_idle()
            count = self._counts[key_id] = _Count(tokens=self.requests_per_minute)
        rate = self.requests_per_minute / 60
        count.tokens, count.at = min(self.requests_per_minute, count.tokens + (now - count.at) * rate), now
        if count.running >= self.concurrent:
            message = f"This key has {count.running} requests running, as many as it may. Wait until one has ended."
            raise GatewayError(429, message, code="too_many_running", retry_after=1)
        if count.tokens < 1:
            wait = max(1, round((1 - count.tokens) / rate))
            message = f"This key may send {self.requests_per_minute} requests a minute. Try again in {wait} s."
            raise GatewayError(429, message, code="rate_limit_exceeded", retry_after=wait)
        count.tokens -= 1
        count.running += 1

    def _forget_idle(self) -> None:
        if len(self._counts) >= MAX_KEPT:
            self._counts = {key: count for key, count in self._counts.items() if count.running}


LIMITS = Limits(requests_per_minute=6000, concurrent=256)
