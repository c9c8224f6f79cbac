"""One answer from the first token to its end: reading the engine's stream, writing the row, telling the sockets.

`seq` counts what was told: each delta raises it by one, and content and reasoning of the row hold all of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError
from django.db.models.functions import Now

from model_core.serving.reasoning import CLOSE, OPEN, ReasoningSplitter
from r1platform.lib.live import apublish
from r1platform.lib.transitions import IllegalTransition
from serving_app.answer_parts import NUM_LIKELIEST, Spent, going_on, tokens_of
from serving_app.background import in_database
from serving_app.context import turns_before
from serving_app.gateway.body import STREAM_OPTIONS, ChatParameters, most_prompt_tokens
from serving_app.gateway.booking import usage_record
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import Slot
from serving_app.gateway.proxying import Exchange, open_exchange
from serving_app.gateway.routing import COMES_UP, TABLE, Route
from serving_app.gateway.spending import Used, most_of
from serving_app.gateway.stream import cached_tokens, reasoning_tokens
from serving_app.gateway.usage import USAGE
from serving_app.models import Message, UsageRecord
from serving_app.sleeping import deployment_wake
from serving_app.states import GENERATION_ENDS, DeploymentState, GenerationState
from serving_app.transitions import message_transition

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 0.2
HEARTBEAT_SECONDS = 2.0
WAIT_FOR_MODEL_SECONDS = 600.0
DATABASE_SECONDS = 60.0
"""How long the last words of an answer wait for a database that is away."""
MAX_KEPT_TOKENS = 4096
"""Tokens of an answer whose probabilities are kept."""
_CHANNELS = {"reasoning_content": "reasoning", "reasoning": "reasoning", "content": "content"}


class NotWanted(Exception):
    """Somebody stopped the answer, here or in another process."""


@dataclass(frozen=True)
class Request:
    """What is asked of the engine, and on whose account."""

    conversation_id: int
    user_id: int
    model: str
    body: dict[str, Any]
    prefix: str = ""
    """What the answer was begun with, and what of it was thought and said."""
    reasoning: str = ""
    content: str = ""
    thinking_budget: int | None = None

    @property
    def is_thinking(self) -> bool:
        """Whether it goes on in the middle of thinking, which engines do not know of the text that follows."""
        return self.prefix.startswith(OPEN) and CLOSE not in self.prefix


class Answer:
    """Writes one assistant message. Cancelling the task stops it and keeps what is there."""

    def __init__(self, message_id: int, slot: Slot | None = None) -> None:
        self.message_id, self.slot = message_id, slot
        self.request_id = uuid.uuid4()
        self.text = {"reasoning": "", "content": ""}
        self.seq = 0
        self.state: str = GenerationState.QUEUED
        self.started = time.monotonic()
        self.first_at: float | None = None
        self.content_at: float | None = None
        self.num_pieces = 0
        self.counted = 0
        self.tokens: list[Any] = []
        self.splitter: ReasoningSplitter | None = None
        self.thinking_cut = False
        self.spent = Spent()
        self.finish_reason: str | None = None
        self.error_code: str | None = None
        self.status = 502
        self.revision_id: int | None = None
        self.exchange: Exchange | None = None
        self.route: Route | None = None
        self._fresh: list[tuple[str, str]] = []
        self._flushed_at = 0.0

    async def write(self) -> None:
        """Asks, streams, and ends the message in one of its final states."""
        request = await in_database(_read, self.message_id)
        if request is None:
            return
        self.text = {"reasoning": request.reasoning, "content": request.content}
        self.splitter = ReasoningSplitter(thinking=True) if request.is_thinking else None
        beat = asyncio.create_task(self._beats(asyncio.current_task()))
        to, reason = str(GenerationState.FAILED), "Something failed on our side; it is in the log of the web process."
        try:
            to, reason = await self._ask(request)
        except (asyncio.CancelledError, NotWanted):
            to, reason = GenerationState.STOPPED, ""
        except GatewayError as error:
            to, reason, self.error_code = GenerationState.FAILED, error.message, error.code
            self.status, self.revision_id = error.status, error.revision_id
        finally:
            beat.cancel()
            ending = asyncio.ensure_future(self._end(request, to, reason))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending

    async def _ask(self, request: Request) -> tuple[str, str]:
        self.route = await self._ready_route(request.model)
        self._reserve(request)
        USAGE.watch(self.request_id, lambda: self._record(request, UsageRecord.RUNNING))
        ended = await self._stream(request, request.body)
        if ended is None:
            ended = await self._stream(request, await self._without_more_thinking(request))
        return ended or (GenerationState.FAILED, "The engine went on thinking.")

    def _reserve(self, request: Request) -> None:
        """What the answer could use, in the limits of the key that asks; a session has none. Raises GatewayError."""
        if self.slot is None:
            return
        assert self.route is not None
        prompt, answer = most_prompt_tokens(request.body["messages"]), request.body.get("max_tokens")
        self.slot.reserve(*most_of(self.slot.terms, self.route, prompt=prompt, answer=answer, num_answers=1))

    async def _stream(self, request: Request, body: dict[str, Any]) -> tuple[str, str] | None:
        """The end and its reason; None when thinking has come to its budget."""
        assert self.route is not None
        self.exchange, self.counted = await open_exchange(self.route, "/v1/chat/completions", body), 0
        async with aclosing(_events(self.exchange)) as events:
            async for event in events:
                if "error" in event:
                    self.error_code = event["error"].get("code")
                    return GenerationState.FAILED, str(event["error"].get("message", "The engine failed."))
                self.counted = (event.get("usage") or {}).get("completion_tokens") or self.counted
                if not self.first_at and self.counted:
                    self.first_at = time.monotonic()
                for choice in event.get("choices", [])[:1]:
                    self._take(choice.get("delta") or {})
                    self.tokens += tokens_of(choice.get("logprobs"), room=MAX_KEPT_TOKENS - len(self.tokens))
                    self.finish_reason = choice.get("finish_reason") or self.finish_reason
                if self._is_over_budget(request):
                    return None
                if self._fresh and time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
                    await self._flush(request)
        if self.splitter is not None:
            self._split("", last=True)
        return GenerationState.DONE, "It reached the longest length allowed." if self.finish_reason == "length" else ""

    def _is_over_budget(self, request: Request) -> bool:
        may_think = not request.prefix or request.is_thinking
        if request.thinking_budget is None or self.thinking_cut or self.content_at is not None or not may_think:
            return False
        return self.first_at is not None and self._num_tokens() >= request.thinking_budget

    def _num_tokens(self) -> int:
        """Tokens of the exchange that goes on, as the engine counts them, else as pieces were seen."""
        exchange = self.exchange  # the thread that writes usage asks too, while this one may go on to another exchange
        told = exchange.usage.get("completion_tokens") if exchange is not None else None
        return told or self.counted or self.num_pieces - self.spent.num_pieces

    async def _without_more_thinking(self, request: Request) -> dict[str, Any]:
        """The request that goes on behind the closed thinking; what was used until then is kept."""
        assert self.exchange is not None
        await self.exchange.close()
        used = self._num_tokens()
        self.spent = Spent(self.num_pieces, used, self.exchange.usage.get("prompt_tokens"), self.exchange.device_seconds)
        self.thinking_cut, self.splitter, self.exchange, self.counted = True, None, None, 0
        if self.tokens:
            self.tokens.append([CLOSE, 0.0, []])
        thought = self.text["reasoning"] + "".join(text for channel, text in self._fresh if channel == "reasoning")
        turns = request.body["messages"]
        if request.prefix:
            turns = turns[:-1]
        body = going_on({**request.body, "messages": turns}, f"{OPEN}{thought}{CLOSE}")
        return body | ({"max_tokens": max(1, body["max_tokens"] - used)} if body.get("max_tokens") else {})

    async def _ready_route(self, name: str) -> Route:
        """The route, once it has a replica; a model that comes up is waited for. Raises GatewayError."""
        deadline = time.monotonic() + WAIT_FOR_MODEL_SECONDS
        while True:
            route = await TABLE.get(name)
            if route is None:
                raise GatewayError(404, "The model of this conversation was deleted. Choose another one.")
            if route.upstreams:
                return route
            if route.state == DeploymentState.ASLEEP:
                await in_database(deployment_wake, route.deployment_id)
            elif route.state not in COMES_UP or time.monotonic() > deadline:
                raise GatewayError(503, route.why_not)
            await asyncio.sleep(0.5)

    def _take(self, delta: dict[str, Any]) -> None:
        """Adds a piece to what is fresh; neighbours of one channel become one."""
        for key, channel in _CHANNELS.items():
            text = delta.get(key)
            if not isinstance(text, str) or not text:
                continue
            self.num_pieces += 1
            self.first_at = self.first_at or time.monotonic()
            text = text.replace("\x00", "")
            if self.splitter is not None and channel == "content":
                self._split(text)
            else:
                self._add(channel, text)

    def _split(self, text: str, *, last: bool = False) -> None:
        """Text that follows a thinking which the engine does not know of."""
        assert self.splitter is not None
        for channel, piece in zip(("reasoning", "content"), self.splitter.feed(text, last=last), strict=True):
            self._add(channel, piece)

    def _add(self, channel: str, text: str) -> None:
        if not text:
            return
        if channel == "content":
            self.content_at = self.content_at or time.monotonic()
        if self._fresh and self._fresh[-1][0] == channel:
            self._fresh[-1] = (channel, self._fresh[-1][1] + text)
        else:
            self._fresh.append((channel, text))

    async def _flush(self, request: Request) -> None:
        """Writes the row, then tells. A database that is away leaves it for the next time. Raises NotWanted."""
        fresh, text = self._fresh, dict(self.text)
        for channel, piece in fresh:
            text[channel] += piece
        state = GenerationState.ANSWERING if self.content_at is not None else GenerationState.THINKING
        self._flushed_at = time.monotonic()
        try:
            wanted = await in_database(_save, self.message_id, state, text, self.seq + len(fresh))
        except DatabaseError as error:
            logger.warning("Answer %s waits for the database: %s", self.message_id, error)
            return
        first, self.text, self.seq, self._fresh = self.seq, text, self.seq + len(fresh), []
        for seq, (channel, piece) in enumerate(fresh, start=first + 1):
            group = f"chat.{request.conversation_id}"
            await apublish(group, "delta", message=self.message_id, seq=seq, channel=channel, text=piece)
        if not wanted:
            raise NotWanted

    async def _beats(self, writer: asyncio.Task[None] | None) -> None:
        """Keeps the heartbeat while the engine is silent, and hears a stop that was asked of another process."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                wanted = await in_database(_beat, self.message_id)
            except DatabaseError:
                continue
            if not wanted and writer is not None:
                writer.cancel()
                return

    async def _end(self, request: Request, to: str, reason: str) -> None:
        """The last words, then text, usage and state together; tried for a while when the database is away."""
        if self.exchange is not None:
            await self.exchange.close()
        if self._fresh:
            with suppress(NotWanted):
                await self._flush(request)
        for channel, piece in self._fresh:
            self.text[channel] += piece
        usage = self._usage()
        fields = {**self.text, "seq": self.seq + len(self._fresh), "usage": usage, "tokens": self.tokens or None}
        self._book(request, to)
        deadline = time.monotonic() + DATABASE_SECONDS
        while True:
            try:
                await in_database(_finish, self.message_id, request.conversation_id, to, reason, fields)
                break
            except DatabaseError as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("The end of answer %s waits for the database: %s", self.message_id, error)
                await asyncio.sleep(1)

    def _usage(self) -> dict[str, Any]:
        """Counts as the engine gave them, else as pieces were seen; times by this process's clock.

        A text that came in one piece tells no speed.
        """
        now = time.monotonic()
        exchange = self.exchange
        told = exchange.usage if exchange is not None else {}
        completion = self.spent.completion_tokens + self._num_tokens()
        writing = now - self.first_at if self.first_at else 0.0
        thought_to = self.content_at or now
        measured = writing > 0 and completion > 1 and self.num_pieces > 1
        return {
            "prompt_tokens": self.spent.prompt_tokens or told.get("prompt_tokens"),
            "completion_tokens": completion,
            "reasoning_tokens": self.spent.completion_tokens or reasoning_tokens(told) or None,
            "ttft_seconds": round(self.first_at - self.started, 4) if self.first_at else None,
            "seconds": round(now - self.started, 4),
            "reasoning_seconds": round(thought_to - self.first_at, 4)
            if self.first_at and self.text["reasoning"]
            else None,
            "tokens_per_second": round((completion - 1) / writing, 2) if measured else None,
            "finish_reason": self.finish_reason,
            "error_code": self.error_code,
            "thinking_cut": self.thinking_cut,
        }

    def _book(self, request: Request, to: str) -> None:
        status = 200 if to in {GenerationState.DONE, GenerationState.STOPPED} else self.status
        if (record := self._record(request, status)) is None:
            return
        USAGE.add(record)
        if self.slot is not None:
            self.slot.leave(record.prompt_tokens + record.completion_tokens, record.cost_dollars)

    def _record(self, request: Request, status: int) -> UsageRecord | None:
        """What it has used so far; None before it is known who answers."""
        if self.route is None:
            return None
        usage, exchange = self._usage(), self.exchange
        told = exchange.usage_so_far if exchange is not None else {}
        used = Used(
            usage["prompt_tokens"] or told.get("prompt_tokens") or 0, cached_tokens(told),
            usage["completion_tokens"] or 0, usage["reasoning_tokens"] or 0,
            self.spent.device_seconds + (exchange.device_seconds if exchange is not None else 0.0),
        )  # fmt: skip
        return usage_record(
            self.route, used, request_id=self.request_id, user_id=request.user_id,
            api_key_id=self.slot.key_id if self.slot is not None else None, status=status,
            revision_id=exchange.upstream.revision_id if exchange is not None else self.revision_id,
            ttft_seconds=usage["ttft_seconds"], seconds=usage["seconds"],
        )  # fmt: skip


async def stopped_early(message_id: int) -> None:
    """Ends an answer that was stopped before anything was asked of an engine."""
    await in_database(_stop_queued, message_id)


async def _events(exchange: Exchange) -> AsyncGenerator[dict[str, Any], None]:
    """The JSON of each event. Raises GatewayError when one is none."""
    async with aclosing(exchange.stream(keep_usage=False, keep_counts=True)) as pieces:
        async for piece in pieces:
            for event in piece.split(b"\n\n"):
                data = event.removeprefix(b"data:").strip()
                if data.startswith(b"{"):
                    yield _event(data)


def _event(data: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise GatewayError(502, f"The engine sent an event that is no JSON: {error}.") from error
    return found


def _read(message_id: int) -> Request | None:
    """The request for the engine, from the branch that ends in this answer; None when it is not queued any more."""
    rows = Message.objects.select_related("conversation", "deployment")
    message = rows.filter(pk=message_id, state=GenerationState.QUEUED).first()
    if message is None or message.deployment is None:
        return None
    if message.stop_wanted:
        _stop_queued(message_id)
        return None
    conversation, model = message.conversation, message.deployment.name
    parameters = ChatParameters.model_validate(conversation.parameters)
    body = {
        **parameters.sampling(),
        **({"logprobs": True, "top_logprobs": NUM_LIKELIEST} if parameters.token_logprobs else {}),
        "model": model,
        "messages": turns_before(message),
        "stream": True,
        "stream_options": dict(STREAM_OPTIONS),
    }
    return Request(
        conversation.pk, conversation.user_id, model, going_on(body, message.prefix) if message.prefix else body,
        prefix=message.prefix, reasoning=message.reasoning, content=message.content, thinking_budget=parameters.thinking_budget,
    )  # fmt: skip


def _stop_queued(message_id: int) -> None:
    message = Message.objects.filter(pk=message_id).first()
    if message is not None:
        _finish(message_id, message.conversation_id, GenerationState.STOPPED, "", {})


def _save(message_id: int, state: str, text: dict[str, str], seq: int) -> bool:
    """Writes what came so far and says whether more is wanted."""
    rows = Message.objects.filter(pk=message_id).exclude(state__in=GENERATION_ENDS)
    found = rows.values("state", "stop_wanted", "conversation_id").first()
    if found is None:
        return False
    fields = {**text, "seq": seq, "heartbeat_at": Now()}
    if found["state"] == state:
        return bool(rows.update(**fields)) and not found["stop_wanted"]
    message_transition(message_id=message_id, conversation_id=found["conversation_id"], to=state, fields=fields)
    return not found["stop_wanted"]


def _beat(message_id: int) -> bool:
    live = Message.objects.filter(pk=message_id, stop_wanted=False).exclude(state__in=GENERATION_ENDS)
    return bool(live.update(heartbeat_at=Now()))


def _finish(message_id: int, conversation_id: int, to: str, reason: str, fields: dict[str, Any]) -> None:
    try:
        message_transition(message_id=message_id, conversation_id=conversation_id, to=to, reason=reason, fields=fields)
    except (IllegalTransition, Message.DoesNotExist) as error:
        logger.info("Answer %s ended before its last word: %s", message_id, error)
