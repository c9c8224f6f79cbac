"""Live messages: hints that something changed. The truth is in the tables, so a lost message loses nothing.

`publish` is called by services and supervisors after commit, `LiveConsumer` brings the messages to a browser. This
module is the only one that touches the channel layer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import redis
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser, User
from django.db import Error as DatabaseTrouble
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest
from prometheus_client import Counter

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)
PUBLISH_FAILURES = Counter("r1_live_publish_failures_total", "Live messages that could not be handed to Redis.")
CHECK_SECONDS = 15.0
AGAIN_SECONDS = 0.5
ANONYMOUS, FORBIDDEN, NOT_FOUND = 4401, 4403, 4404
BROKEN = 1011
"""Something is wrong on our side: the browser comes back, and is asked again who it is."""
AWAY = (DatabaseTrouble, redis.RedisError, OSError)
"""What a check can fail with when the database or Redis is away."""


def publish(group: str, kind: str, **payload: Any) -> None:
    """Sends `{"type": "live", "kind": kind, **payload}` to every socket of `group`; never raises."""
    with _harmless(group):
        async_to_sync(_send)(group, kind, payload)


async def apublish(group: str, kind: str, **payload: Any) -> None:
    """`publish` for callers inside an event loop."""
    with _harmless(group):
        await _send(group, kind, payload)


async def _send(group: str, kind: str, payload: dict[str, Any]) -> None:
    await get_channel_layer().group_send(group, {"type": "live", "kind": kind, **payload})


@contextlib.contextmanager
def _harmless(group: str) -> Iterator[None]:
    """Counts and logs what goes wrong: a hint that is lost is fetched."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - Redis may be away in any way it likes; training and pages must go on without it.
        PUBLISH_FAILURES.inc()
        logger.warning("A live message to %s was lost: %s.", group, error)


class Refused(Exception):
    """Why a socket is not served: one of ANONYMOUS, FORBIDDEN, NOT_FOUND. Browsers do not try again after these."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class LiveConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A socket of a signed-in user that joins groups, asks again every 15 s whether it still may, and pings.

    A subclass writes `authorise`, which is called at connect and at every check, `opened`, and `live`. What it reads
    from the database in a task of its own it reads through `patiently`. A check that cannot be made closes the socket.
    """

    user: User | AnonymousUser
    joined: list[str]
    _watch: asyncio.Task[None] | None = None

    def authorise(self, user: User) -> list[str]:
        """The groups that `user` may hear; runs in a thread, so it may ask the database. Raises Refused."""
        raise NotImplementedError

    async def opened(self) -> None:
        """Called once the groups are joined: send what was missed."""

    async def live(self, message: dict[str, Any]) -> None:
        """A message of `publish`; the default hands it to the browser with its kind as type."""
        body = {key: value for key, value in message.items() if key not in {"type", "kind"}}
        await self.send_json({"type": message["kind"], **body})

    async def websocket_connect(self, message: Any) -> None:
        self.joined = []
        await self.accept()
        if not await self._check():
            return
        self._watch = asyncio.create_task(self._watching())
        await self.opened()

    async def disconnect(self, code: int) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        with contextlib.suppress(redis.RedisError, OSError):
            await self._hear([])

    async def patiently(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `read` returns from a thread, asked again while the database is away; a check closes the socket meanwhile."""
        while True:
            try:
                answer: T = await database_sync_to_async(read)(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                logger.warning("A socket waits for the database: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return answer

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not await self._check():
                return
            await self.send_json({"type": "ping"})

    async def _check(self) -> bool:
        """Asks whether the session still lives and what the user may hear; closes the socket when it may not or cannot tell."""
        try:
            self.user, allowed = await database_sync_to_async(self._allowed)()
            await self._hear(allowed)
        except Refused as refused:
            code = refused.code if self._watch is None else ANONYMOUS
        except AWAY as error:
            logger.warning("A socket is closed because nobody can say whether it may listen: %s", error)
            code = BROKEN
        else:
            return True
        await self.close(code=code)
        return False

    async def _hear(self, groups: list[str]) -> None:
        """Leaves the groups that are not in `groups` and joins those that are new."""
        for group in set(self.joined) - set(groups):
            await self.channel_layer.group_discard(group, self.channel_name)
            self.joined.remove(group)
        for group in set(groups) - set(self.joined):
            await self.channel_layer.group_add(group, self.channel_name)
            self.joined.append(group)

    def _allowed(self) -> tuple[User, list[str]]:
        user = session_user(self.scope.get("session"))
        if not isinstance(user, User) or not user.is_active:
            raise Refused(ANONYMOUS)
        return user, self.authorise(user)


def session_user(session: Any) -> User | AnonymousUser:
    """The user of a session as the database has it now: signing out or a new password ends it."""
    key = getattr(session, "session_key", None)
    if not key:
        return AnonymousUser()
    request = HttpRequest()
    request.session = type(getattr(session, "_wrapped", session))(key)
    user = get_user(request)
    return user if isinstance(user, User) else AnonymousUser()
