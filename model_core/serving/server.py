"""The engine's HTTP: /health, /metrics, /v1/models, /v1/chat/completions, /v1/completions, as OpenAI describes them.

Source: https://platform.openai.com/docs/api-reference. Deviation: thinking comes apart as `reasoning_content`, as
DeepSeek's own API does. A reader who goes away cancels the request.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from model_core.errors import ModelCoreError
from model_core.serving.backend import Backend, Sampling
from model_core.serving.reasoning import ReasoningSplitter

MAX_BODY_BYTES = 8 << 20
MAX_STOPS = 16


class Part(BaseModel):
    """A part of a message; only text is read."""

    type: str
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = ""

    def text(self) -> str:
        """Its text, parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class Common(BaseModel):
    """What both kinds of completion understand; settings that do not concern us are let through."""

    model_config = ConfigDict(extra="ignore")
    model: str
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    n: int = Field(1, ge=1, le=16)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    def stops(self) -> list[str]:
        """Texts at which the answer ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text][:MAX_STOPS]

    def sampling(self, number: int) -> Sampling:
        """How completion `number` is drawn; without a seed every request is another."""
        seed = uuid.uuid4().int % 2**31 if self.seed is None else self.seed % 2**31
        limit = self.max_completion_tokens or self.max_tokens
        return Sampling(limit, self.temperature, self.top_p, seed + number)


class ChatBody(Common):
    messages: list[Message] = Field(min_length=1)


class TextBody(Common):
    prompt: str


class Refused(Exception):
    """A 4xx with the sentence for the caller."""

    def __init__(self, status: int, message: str, *, param: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def response(self) -> JSONResponse:
        """OpenAI's form of an error."""
        kind = "authentication_error" if self.status == 401 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param or None, "code": None}
        return JSONResponse({"error": error}, status_code=self.status)


@dataclass
class Answer:
    """One completion while it grows: thinking and content apart, ended early by a stop text."""

    splitter: ReasoningSplitter | None
    stops: list[str]
    reasoning: str = ""
    content: str = ""
    num_tokens: int = 0
    num_reasoning: int = 0
    finish_reason: str | None = None
    _held: str = field(default="")

    def feed(self, text: str, num_tokens: int, finish_reason: str | None) -> tuple[str, str]:
        """Takes a piece; (reasoning, content) that may be shown."""
        self.num_tokens, last = num_tokens, finish_reason is not None
        thought, said = self.splitter.feed(text, last=last) if self.splitter else ("", text)
        if self.splitter and (thought or self.splitter.thinking):
            self.num_reasoning = num_tokens
        said, stopped = self._until_stop(said, last=last)
        self.reasoning, self.content = self.reasoning + thought, self.content + said
        self.finish_reason = "stop" if stopped else finish_reason
        return thought, said

    def _until_stop(self, said: str, *, last: bool) -> tuple[str, bool]:
        text, self._held = self._held + said, ""
        places = [place for place in (text.find(stop) for stop in self.stops) if place >= 0]
        if places:
            return text[: min(places)], True
        if last or not self.stops:
            return text, False
        keep = max(
            (size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0
        )
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut], False


def app(backend: Backend, *, served_name: str, api_key: str) -> Starlette:
    """The ASGI application; without an `api_key` nobody is asked for one."""
    server = Server(backend, served_name, api_key)
    routes = [
        Route("/health", server.health),
        Route("/metrics", server.metrics),
        Route("/v1/models", server.models),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.text, methods=["POST"]),
    ]
    return Starlette(routes=routes)


class Server:
    """The handlers over one backend."""

    def __init__(self, backend: Backend, served_name: str, api_key: str) -> None:
        self.backend, self.served_name, self.api_key = backend, served_name, api_key
        self.started = int(time.time())

    async def health(self, _request: Request) -> Response:
        """200 once the model is loaded; 503 before, and 500 when it never will be."""
        phase = self.backend.phase
        status = {"ready": 200, "failed": 500}.get(phase, 503)
        return JSONResponse({"phase": phase, "detail": self.backend.detail}, status_code=status)

    async def metrics(self, _request: Request) -> Response:
        return JSONResponse(self.backend.metrics())

    async def models(self, request: Request) -> Response:
        try:
            self._check_key(request)
        except Refused as refused:
            return refused.response()
        row = {"id": self.served_name, "object": "model", "created": self.started, "owned_by": "r1"}
        return JSONResponse({"object": "list", "data": [row]})

    async def chat(self, request: Request) -> Response:
        """A conversation's next message."""
        return await self._complete(request, ChatBody)

    async def text(self, request: Request) -> Response:
        """A text's continuation, thinking left in it."""
        return await self._complete(request, TextBody)

    async def _complete(self, request: Request, kind: type[ChatBody] | type[TextBody]) -> Response:
        try:
            self._check_key(request)
            body = await self._body(request, kind)
            prompt = self._prompt(body)
            if body.stream and body.n > 1:
                raise Refused(400, "A stream has one completion; ask for n=1 or without stream.", param="n")
            exchange = Exchange(self.backend, body, prompt, self.served_name)
            if not body.stream:
                return await exchange.whole(request)
            first = await exchange.first()
            return StreamingResponse(exchange.events(first), media_type="text/event-stream")
        except Refused as refused:
            return refused.response()
        except ModelCoreError as error:
            return Refused(400, error.message, param=error.field).response()

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.api_key and not hmac.compare_digest(given.encode(), self.api_key.encode()):
            raise Refused(401, "The key is missing or wrong.")
        if self.backend.phase != "ready" and request.method == "POST":
            raise Refused(503, f"The model is not ready: {self.backend.detail}")

    async def _body(self, request: Request, kind: type[ChatBody] | type[TextBody]) -> Any:
        data = await request.body()
        if len(data) > MAX_BODY_BYTES:
            raise Refused(413, f"The request is larger than {MAX_BODY_BYTES >> 20} MiB.")
        try:
            body = kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Refused(400, f"{where}: {first['msg']}." if where else f"{first['msg']}.", param=where) from None
        if body.model != self.served_name:
            raise Refused(404, f"There is no model “{body.model}” here; this serves “{self.served_name}”.", param="model")
        return body

    def _prompt(self, body: Any) -> list[int]:
        if isinstance(body, TextBody):
            return self.backend.encode(body.prompt)
        return self.backend.encode([{"role": m.role, "content": m.text()} for m in body.messages])


class Exchange:
    """One request's completions."""

    def __init__(self, backend: Backend, body: Any, prompt: list[int], served_name: str) -> None:
        self.backend, self.body, self.prompt, self.served_name = backend, body, prompt, served_name
        self.is_chat = isinstance(body, ChatBody)
        self.id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.answer = self._answer()
        self._pieces: Any = None

    def _answer(self) -> Answer:
        return Answer(ReasoningSplitter() if self.is_chat else None, self.body.stops())

    async def whole(self, request: Request) -> Response:
        """All completions at once; gives up when the reader is gone."""
        work = asyncio.gather(*(self._collect(number) for number in range(self.body.n)))
        gone = asyncio.create_task(_disconnected(request))
        both: list[asyncio.Future[Any]] = [work, gone]
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if work not in done:
            work.cancel()
            await asyncio.wait([work])
            return Response(status_code=499)
        answers = work.result()
        choices = [self._choice(number, answer) for number, answer in enumerate(answers)]
        return JSONResponse({**self._head(), "choices": choices, "usage": self._usage(answers)})

    async def _collect(self, number: int) -> Answer:
        answer = self._answer()
        pieces = self.backend.generate(self.prompt, self.body.sampling(number))
        async for piece in pieces:
            answer.feed(piece.text, piece.num_tokens, piece.finish_reason)
            if answer.finish_reason:
                break
        await pieces.aclose()  # type: ignore[attr-defined]
        return answer

    async def first(self) -> Any:
        """Waits for the first piece, so that a refusal is an error and not the beginning of a stream."""
        self._pieces = self.backend.generate(self.prompt, self.body.sampling(0))
        return await anext(self._pieces)

    async def events(self, first: Any) -> AsyncIterator[str]:
        """Server-sent events, then the usage when it was asked for, then [DONE]."""
        try:
            if self.is_chat:
                yield self._event({"role": "assistant", "content": ""}, None)
            piece = first
            while True:
                thought, said = self.answer.feed(piece.text, piece.num_tokens, piece.finish_reason)
                if thought:
                    yield self._event({"reasoning_content": thought}, None)
                if said:
                    yield self._event({"content": said} if self.is_chat else said, None)
                if self.answer.finish_reason:
                    break
                piece = await anext(self._pieces)
            yield self._event({} if self.is_chat else "", self.answer.finish_reason)
            options = self.body.stream_options
            if options is not None and options.include_usage:
                yield _line({**self._head(chunk=True), "choices": [], "usage": self._usage([self.answer])})
            yield "data: [DONE]\n\n"
        finally:
            await self._pieces.aclose()

    def _event(self, delta: Any, finish_reason: str | None) -> str:
        value = {"delta": delta} if self.is_chat else {"text": delta}
        choice = {"index": 0, **value, "finish_reason": finish_reason}
        return _line({**self._head(chunk=True), "choices": [choice]})

    def _head(self, *, chunk: bool = False) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served_name}

    def _choice(self, number: int, answer: Answer) -> dict[str, Any]:
        if not self.is_chat:
            return {"index": number, "text": answer.content, "finish_reason": answer.finish_reason}
        message = {"role": "assistant", "content": answer.content, "reasoning_content": answer.reasoning or None}
        return {"index": number, "message": message, "finish_reason": answer.finish_reason}

    def _usage(self, answers: list[Answer]) -> dict[str, Any]:
        generated = sum(answer.num_tokens for answer in answers)
        thought = sum(answer.num_reasoning for answer in answers)
        return {
            "prompt_tokens": len(self.prompt), "completion_tokens": generated, "total_tokens": len(self.prompt) + generated,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }  # fmt: skip


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _line(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
