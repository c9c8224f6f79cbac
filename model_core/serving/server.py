"""The engine's HTTP: /health, /metrics, /v1/models, /v1/chat/completions, /v1/completions, as OpenAI describes them.

Source: https://platform.openai.com/docs/api-reference. Deviation: thinking comes apart as `reasoning_content`, as
DeepSeek's own API does. A reader who goes away cancels the request, also one that waits. `bodies` says what may be asked;
what a trainer asks beside it is in `native`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from model_core.errors import ModelCoreError
from model_core.serving.answering import CLIENT_LEFT, ClientLeft, logged, refusal, unless_gone
from model_core.serving.backend import Backend, ModelBackend, Piece, end_process_when_broken
from model_core.serving.bodies import ChatBody, Refused, TextBody, parse
from model_core.serving.growing import Answer, chat_logprobs, text_logprobs
from model_core.serving.native import Native
from model_core.serving.reasoning import ReasoningSplitter


def app(
    backend: Backend, *, served_name: str, api_key: str, watch: Callable[[Backend], None] = end_process_when_broken
) -> Starlette:
    """The ASGI application; without an `api_key` nobody is asked for one. `watch` is told whose failure ends it."""
    watch(backend)
    server = Server(backend, served_name, api_key)
    routes = [
        Route("/health", server.health),
        Route("/metrics", server.metrics),
        Route("/v1/models", server.models),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.text, methods=["POST"]),
    ]
    if isinstance(backend, ModelBackend):
        routes += Native(backend, server.check_key, has_key=bool(api_key)).routes()
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
            self.check_key(request)
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
            self.check_key(request)
            body = parse(kind, await request.body(), served_name=self.served_name)
            prompt = self._prompt(body)
            self._check_length(prompt, body)
            exchange = Exchange(self.backend, body, prompt, self.served_name)
            if body.stream:
                first = await unless_gone(exchange.first(), request)
                return StreamingResponse(exchange.events(first), media_type="text/event-stream")
            return JSONResponse(await unless_gone(exchange.whole(), request))
        except ClientLeft:
            return Response(status_code=CLIENT_LEFT)
        except Refused as refused:
            return logged(refused).response()
        except ModelCoreError as error:
            return logged(refusal(error)).response()

    def check_key(self, request: Request) -> None:
        """Raises Refused without the right key, and for work that comes before the model."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.api_key and not hmac.compare_digest(given.encode(), self.api_key.encode()):
            raise Refused(401, "The key is missing or wrong.")
        if self.backend.phase != "ready" and request.method == "POST":
            raise Refused(503, f"The model is not ready: {self.backend.detail}")

    def _prompt(self, body: Any) -> list[int]:
        if isinstance(body, TextBody):
            return self.backend.encode(body.prompt)
        return self.backend.encode(body.turns(), begun=body.begun)

    def _check_length(self, prompt: list[int], body: Any) -> None:
        length, context = len(prompt), self.backend.context
        code = "context_length_exceeded"
        if length >= context:
            message = f"The prompt has {length} tokens, too many for the model's context of {context}. Shorten it."
            raise Refused(400, message, param="prompt" if isinstance(body, TextBody) else "messages", code=code)
        if length + (body.limit or 0) > context:
            message = (
                f"The prompt has {length} tokens and max_tokens is {body.limit}, together more than the model's context of "
                f"{context} tokens. Shorten the prompt or ask for fewer."
            )
            raise Refused(400, message, param="max_tokens", code=code)


class Exchange:
    """One request's completions."""

    def __init__(self, backend: Backend, body: Any, prompt: list[int], served_name: str) -> None:
        self.backend, self.body, self.prompt, self.served_name = backend, body, prompt, served_name
        self.is_chat = isinstance(body, ChatBody)
        self.id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.answer = self._answer()
        self._pieces: Any = None
        self._offset = 0

    def _answer(self) -> Answer:
        return Answer(ReasoningSplitter() if self.is_chat else None, self.body.stops())

    async def whole(self) -> dict[str, Any]:
        """All completions at once."""
        work = [asyncio.ensure_future(self._collect(number)) for number in range(self.body.n)]
        try:
            answers = await asyncio.gather(*work)
        finally:
            for one in work:
                one.cancel()
        choices = [self._choice(number, answer) for number, answer in enumerate(answers)]
        return {**self._head(), "choices": choices, "usage": self._usage(answers)}

    async def _collect(self, number: int) -> Answer:
        answer = self._answer()
        async with aclosing(self.backend.generate(self.prompt, self.body.sampling(number))) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                answer.feed(piece)
                if answer.finish_reason:
                    break
        return answer

    async def first(self) -> Piece:
        """Waits for the first piece, so that a refusal is an error and not the beginning of a stream."""
        self._pieces = self.backend.generate(self.prompt, self.body.sampling(0))
        return await anext(self._pieces)

    async def events(self, first: Piece) -> AsyncIterator[str]:
        """Server-sent events, then the usage when it was asked for, then [DONE]; an engine that fails says so instead."""
        try:
            if self.is_chat:
                yield self._event({"role": "assistant", "content": ""}, None)
            piece = first
            while True:
                for event in self._told(piece):
                    yield event
                if self.answer.finish_reason:
                    break
                piece = await anext(self._pieces)
            yield self._event({} if self.is_chat else "", self.answer.finish_reason)
            options = self.body.stream_options
            if options is not None and options.include_usage:
                yield _line({**self._head(chunk=True), "choices": [], "usage": self._usage([self.answer])})
            yield "data: [DONE]\n\n"
        except ModelCoreError as error:
            yield _line(logged(refusal(error)).body())
        finally:
            await self._pieces.aclose()

    def _told(self, piece: Piece) -> list[str]:
        """The events of one piece; with counts or log-probabilities also for a piece whose text is still held."""
        thought, said = self.answer.feed(piece)
        events = [self._event({"reasoning_content": thought}, None)] if thought else []
        if said:
            events.append(self._event({"content": said} if self.is_chat else said, None))
        if not events and (self._counts or self.answer.scored):
            events.append(self._event({} if self.is_chat else "", None))
        return events

    @property
    def _counts(self) -> bool:
        options = self.body.stream_options
        return options is not None and options.continuous_usage_stats

    def _event(self, delta: Any, finish_reason: str | None) -> str:
        """One chunk; it takes the log-probabilities that no chunk has taken yet."""
        value = {"delta": delta} if self.is_chat else {"text": delta}
        choice = {"index": 0, **value, "finish_reason": finish_reason}
        if self.body.num_top is not None:
            scored, self.answer.scored = self.answer.scored, []
            choice["logprobs"] = self._logprobs(scored, offset=self._offset) if scored else None
            self._offset += sum(len(one.text) for one in scored)
        usage = {"usage": self._usage([self.answer])} if self._counts else {}
        return _line({**self._head(chunk=True), "choices": [choice], **usage})

    def _logprobs(self, scored: list[Any], *, offset: int = 0) -> dict[str, Any]:
        return chat_logprobs(scored) if self.is_chat else text_logprobs(scored, offset=offset)

    def _head(self, *, chunk: bool = False) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served_name}

    def _choice(self, number: int, answer: Answer) -> dict[str, Any]:
        asked = self.body.num_top is not None
        more = {"finish_reason": answer.finish_reason, "logprobs": self._logprobs(answer.scored) if asked else None}
        if not self.is_chat:
            return {"index": number, "text": answer.content, **more}
        message = {"role": "assistant", "content": answer.content, "reasoning_content": answer.reasoning or None}
        return {"index": number, "message": message, **more}

    def _usage(self, answers: list[Answer]) -> dict[str, Any]:
        generated = sum(answer.num_tokens for answer in answers)
        thought = sum(answer.num_reasoning for answer in answers)
        return {
            "prompt_tokens": len(self.prompt), "completion_tokens": generated, "total_tokens": len(self.prompt) + generated,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }  # fmt: skip


def _line(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
