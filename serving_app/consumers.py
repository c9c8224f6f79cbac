"""The playground's socket: the thread as it is now, then what is written; messages can be sent over it as well.

A reader comes back by reading the snapshot: its `seq` says which deltas are in it. The answer itself belongs to
`serving_app.generation`, so closing the socket changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import ObjectDoesNotExist

from model_core.errors import ConfigError, ModelCoreError
from r1platform.lib.live import NOT_FOUND, LiveConsumer, Refused
from r1platform.lib.transitions import IllegalTransition
from serving_app import services
from serving_app.models import Conversation, Message
from serving_app.selectors import conversation_list, conversation_tree


class ChatConsumer(LiveConsumer):
    """`/ws/chat/<conversation>/`: {"type": "snapshot" | "delta" | "state" | "error" | "ping", …}.

    Hears {"type": "send", "content", "parent"?}, {"type": "stop" | "regenerate", "message"} and
    {"type": "edit", "message", "content"}. A conversation is its user's own; to others it does not exist.
    """

    conversation: Conversation

    def authorise(self, user: User) -> list[str]:
        pk = int(self.scope["url_route"]["kwargs"]["conversation_id"])
        found = conversation_list(user=user).filter(pk=pk).first()
        if found is None:
            raise Refused(NOT_FOUND)
        self.conversation = found
        return [f"chat.{pk}"]

    async def opened(self) -> None:
        messages = await database_sync_to_async(conversation_tree)(conversation=self.conversation)
        head = {"id": self.conversation.pk, "title": self.conversation.title}
        await self.send_json({"type": "snapshot", "conversation": head, "messages": messages})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **_: Any) -> None:
        """Hears one frame; what is no JSON text is refused and the socket stays."""
        try:
            content = json.loads(text_data) if text_data is not None else None
        except (ValueError, RecursionError):
            content = None
        await self.receive_json(content)

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Does what is asked, after asking again whether this user still may."""
        kind = content.get("type") if isinstance(content, dict) else None
        verb = _VERBS.get(kind) if isinstance(kind, str) else None
        if verb is None:
            await self._refuse(f"There is no such message; send one of {', '.join(_VERBS)}.")
            return
        try:
            await database_sync_to_async(self._allowed)()
            await database_sync_to_async(verb)(self, content)
        except Refused as refused:
            await self.close(code=refused.code)
        except ObjectDoesNotExist:
            await self.close(code=NOT_FOUND)
        except IllegalTransition as error:
            await self._refuse(services.why_not(error))
        except ModelCoreError as error:
            await self._refuse(error.message, field=error.field)

    async def _refuse(self, sentence: str, *, field: str = "") -> None:
        await self.send_json({"type": "error", "detail": sentence, "field": field})

    def message(self, content: dict[str, Any], key: str = "message") -> Message:
        """The message of this conversation that is named. Raises ConfigError."""
        given = content.get(key)
        found = None
        if isinstance(given, int) and not isinstance(given, bool) and 0 < given < 1 << 63:
            found = self.conversation.messages.filter(pk=given).first()
        if found is None:
            raise ConfigError("This conversation has no such message.", field=key)
        return found

    def owner(self) -> User:
        """Who opened the socket; `authorise` lets nobody else in."""
        assert isinstance(self.user, User)
        return self.user


def _send(socket: ChatConsumer, content: dict[str, Any]) -> None:
    parent = socket.message(content, "parent") if content.get("parent") is not None else None
    services.message_send(
        conversation=socket.conversation, user=socket.owner(), content=_text(content), parent=parent
    )


def _stop(socket: ChatConsumer, content: dict[str, Any]) -> None:
    services.message_stop(message=socket.message(content), user=socket.owner())


def _regenerate(socket: ChatConsumer, content: dict[str, Any]) -> None:
    services.message_regenerate(message=socket.message(content), user=socket.owner())


def _edit(socket: ChatConsumer, content: dict[str, Any]) -> None:
    services.message_edit(message=socket.message(content), user=socket.owner(), content=_text(content))


def _text(content: dict[str, Any]) -> str:
    found = content.get("content", "")
    if not isinstance(found, str):
        raise ConfigError("“content” is the text of the message, in quotes.", field="content")
    return found


_VERBS: dict[str, Callable[[ChatConsumer, dict[str, Any]], None]] = {
    "send": _send, "stop": _stop, "regenerate": _regenerate, "edit": _edit,
}  # fmt: skip
