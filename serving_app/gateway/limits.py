"""How much one key may ask for: requests and tokens a minute, requests at the same time, dollars a month.

Counted in this web process under one lock, so that no two requests take the same room. What a request could use at most is
reserved before it is sent, and what it did use stands in its place afterwards. Dollars of a month begin with what the table
of usage says; windows begin empty with the process.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from r1platform.keys import MOST
from r1platform.models import ApiKey
from serving_app.gateway.errors import GatewayError

WINDOW_SECONDS = 60.0
MAX_KEPT = 10_000
NOTHING = Decimal(0)


@dataclass(frozen=True)
class Terms:
    """What one key may use; None: no limit of its own."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    dollars_per_month: Decimal | None = None

    @property
    def reserves(self) -> bool:
        """Whether what a request could use has to be known before it is sent."""
        return self.tokens_per_minute is not None or self.dollars_per_month is not None


def terms_of(key: ApiKey) -> Terms:
    """The limits of a key as they are in its row."""
    return Terms(**{name: getattr(key, name) for name in MOST})


@dataclass
class _Entry:
    at: float
    amount: int


@dataclass
class _Window:
    """Amounts that began within the last minute, and their sum."""

    entries: deque[_Entry] = field(default_factory=deque)
    total: int = 0

    def forget(self, now: float) -> None:
        while self.entries and self.entries[0].at <= now - WINDOW_SECONDS:
            self.total -= self.entries.popleft().amount

    def wait(self, amount: int, limit: int, now: float) -> float:
        """Seconds until there is room for `amount`; 0 when there is now."""
        over, last = self.total + amount - limit, None
        for entry in self.entries:
            if over <= 0:
                break
            over, last = over - entry.amount, entry.at
        return 0.0 if last is None else max(last + WINDOW_SECONDS - now, 0.001)

    def add(self, amount: int, now: float) -> _Entry:
        entry = _Entry(now, amount)
        self.entries.append(entry)
        self.total += amount
        return entry

    def change(self, entry: _Entry, amount: int, now: float) -> None:
        """Another amount in the place of an entry; one that is older than a minute counts no more."""
        self.forget(now)
        if entry.at > now - WINDOW_SECONDS:
            self.total += amount - entry.amount
        entry.amount = amount


@dataclass
class _Account:
    spent: Decimal
    month: tuple[int, int]
    reserved: Decimal = NOTHING
    running: int = 0
    requests: _Window = field(default_factory=_Window)
    tokens: _Window = field(default_factory=_Window)

    def at(self, now: float) -> None:
        """Leaves behind what is older than the window or of another month."""
        self.requests.forget(now)
        self.tokens.forget(now)
        if (month := this_month()) != self.month:
            self.month, self.spent = month, NOTHING

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.requests.entries


class Slot:
    """One request that was counted in. It is counted out once, however often that is said."""

    def __init__(self, limits: Limits, key_id: int, terms: Terms, entry: _Entry, reserved: Decimal) -> None:
        self.key_id, self.terms = key_id, terms
        self.reserved = reserved
        self.entry = entry
        self.is_open = True
        self._limits = limits

    def reserve(self, tokens: int, dollars: Decimal) -> None:
        """Takes room for what is known only now. Raises GatewayError 429 or 400 and takes none."""
        self._limits.reserve(self, tokens, dollars)

    def leave(self, tokens: int = 0, dollars: Decimal = NOTHING) -> None:
        """Counts it out: what it used stands in the place of what was reserved."""
        self._limits.leave(self, tokens, dollars)


class Limits:
    """The accounts of all keys that have asked lately. The two numbers hold for every key, whatever its own terms."""

    def __init__(
        self, *, requests_per_minute: int = MOST["requests_per_minute"], concurrent: int = MOST["concurrent_requests"]
    ) -> None:
        self.requests_per_minute = requests_per_minute
        self.concurrent = concurrent
        self._accounts: dict[int, _Account] = {}
        self._lock = threading.Lock()

    def knows(self, key_id: int) -> bool:
        """Whether the key's account is open."""
        return key_id in self._accounts

    def open(self, key_id: int, *, spent: Decimal) -> None:
        """Begins an account with what was spent this month; one that is open is left as it is."""
        with self._lock:
            if key_id not in self._accounts:
                self._forget_idle()
                self._accounts[key_id] = _Account(spent, this_month())

    def enter(self, key_id: int, terms: Terms, *, tokens: int = 0, dollars: Decimal = NOTHING) -> Slot:
        """Counts a request in, from any thread, with what it could use. Raises GatewayError 429 with the time to wait."""
        with self._lock:
            account = self._accounts.setdefault(key_id, _Account(NOTHING, this_month()))
            now = time.monotonic()
            account.at(now)
            self._check_requests(account, terms, now)
            _check_room(account, terms, tokens, dollars, now)
            account.running += 1
            account.requests.add(1, now)
            account.reserved += dollars
            return Slot(self, key_id, terms, account.tokens.add(tokens, now), dollars)

    def reserve(self, slot: Slot, tokens: int, dollars: Decimal) -> None:
        with self._lock:
            account, now = self._accounts[slot.key_id], time.monotonic()
            account.at(now)
            _check_room(account, slot.terms, tokens, dollars, now)
            account.tokens.change(slot.entry, slot.entry.amount + tokens, now)
            slot.reserved += dollars
            account.reserved += dollars

    def leave(self, slot: Slot, tokens: int, dollars: Decimal) -> None:
        with self._lock:
            if not slot.is_open:
                return
            slot.is_open = False
            account, now = self._accounts[slot.key_id], time.monotonic()
            account.at(now)
            account.running -= 1
            account.reserved -= slot.reserved
            account.spent += dollars
            account.tokens.change(slot.entry, tokens, now)

    def running(self, key_id: int) -> int:
        """Requests of the key that have not left."""
        account = self._accounts.get(key_id)
        return account.running if account is not None else 0

    def _check_requests(self, account: _Account, terms: Terms, now: float) -> None:
        most = min(terms.concurrent_requests or self.concurrent, self.concurrent)
        if account.running >= most:
            message = f"This key has {account.running} requests running, as many as it may. Wait until one has ended."
            raise GatewayError(429, message, code="too_many_running", retry_after=1)
        most = min(terms.requests_per_minute or self.requests_per_minute, self.requests_per_minute)
        if wait := account.requests.wait(1, most, now):
            message = f"This key may send {most} requests a minute. Try again in {math.ceil(wait)} s."
            raise GatewayError(429, message, code="rate_limit_exceeded", retry_after=math.ceil(wait))

    def _forget_idle(self) -> None:
        if len(self._accounts) >= MAX_KEPT:
            now = time.monotonic()
            for account in self._accounts.values():
                account.at(now)
            self._accounts = {key: account for key, account in self._accounts.items() if not account.is_idle}


def this_month() -> tuple[int, int]:
    """Year and month, in UTC."""
    today = datetime.now(UTC)
    return today.year, today.month


def _check_room(account: _Account, terms: Terms, tokens: int, dollars: Decimal, now: float) -> None:
    """Raises GatewayError 429 when there is no room now, 400 when there never is."""
    if (most := terms.tokens_per_minute) is not None:
        if tokens > most:
            message = f"This request could use {tokens} tokens; this key may use {most} a minute. Ask for fewer (max_tokens)."
            raise GatewayError(400, message, code="tokens_above_limit", param="max_tokens")
        if wait := account.tokens.wait(tokens, most, now):
            message = (
                f"This key may use {most} tokens a minute; {account.tokens.total} are used or reserved and this request could use "
                f"{tokens}. Try again in {math.ceil(wait)} s, or ask for fewer (max_tokens)."
            )
            raise GatewayError(429, message, code="tokens_limit_exceeded", retry_after=math.ceil(wait))
    if (limit := terms.dollars_per_month) is not None:
        _check_dollars(account, limit, dollars)


def _check_dollars(account: _Account, limit: Decimal, dollars: Decimal) -> None:
    if dollars > limit:
        message = f"This request could cost ${dollars:f}; this key may spend ${limit:f} a month. Ask for fewer tokens (max_tokens)."
        raise GatewayError(400, message, code="dollars_above_limit", param="max_tokens")
    if account.spent >= limit or account.spent + dollars > limit:
        message = f"This key has spent ${account.spent:f} of the ${limit:f} that it may spend this month. Raise its limit, or wait."
        raise GatewayError(429, message, code="insufficient_quota", retry_after=_until_next_month())
    if account.spent + account.reserved + dollars > limit:
        message = f"Requests that run could spend what is left of this key's ${limit:f} a month. Wait until one has ended."
        raise GatewayError(429, message, code="dollars_reserved", retry_after=1)


def _until_next_month() -> int:
    """Whole seconds, at least one."""
    now = datetime.now(UTC)
    first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return max(1, math.ceil((first - now).total_seconds()))


LIMITS = Limits()
