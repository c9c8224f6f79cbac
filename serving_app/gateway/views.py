"""The paths of the gateway. Plain async views: no session, no cookie, no CSRF; the bearer key is all that counts."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from serving_app.gateway.auth import Caller, caller_of
from serving_app.gateway.body import MAX_BYTES, Body, ChatBody, CompletionBody, parse
from serving_app.gateway.booking import CLIENT_LEFT, Booking
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import LIMITS
from serving_app.gateway.proxying import Exchange, open_exchange
from serving_app.gateway.routing import TABLE, Route
from serving_app.gateway.spending import most_of

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]
REQUEST_ID = "r1.request_id"
"""Where a request carries its id, which the answer's header and the row of its usage have too."""


def endpoint(method: str) -> Callable[[View], View]:
    """A gateway view: one method, errors in OpenAI's shape, an id in every answer, none of the platform's sign-in."""

    def decorate(view: View) -> View:
        @wraps(view)
        async def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            request.META[REQUEST_ID] = uuid.uuid4()
            response = await _answer(request, *args, **kwargs)
            response.headers["X-Request-Id"] = str(request.META[REQUEST_ID])
            return response

        async def _answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                if request.method != method:
                    raise GatewayError(405, f"This path takes {method}, not {request.method}.")
                return await view(request, *args, **kwargs)
            except GatewayError as error:
                return error.response()
            except (OperationalError, InterfaceError):
                message = "The platform's database cannot be reached. Try again in a few seconds."
                return GatewayError(503, message, code="database_away", retry_after=5).response()

        return login_not_required(csrf_exempt(answer))

    return decorate


@endpoint("GET")
async def models(request: HttpRequest) -> HttpResponse:
    """Models that the key may use and that answer now, or start when they are asked."""
    caller = await caller_of(request)
    routes = [route for route in await TABLE.all() if route.project_id in caller.projects and _answers(route)]
    return JsonResponse({"object": "list", "data": [_model(route) for route in sorted(routes, key=lambda r: r.name)]})


@endpoint("GET")
async def model(request: HttpRequest, name: str) -> HttpResponse:
    """One model, also one that does not answer now; its state is told."""
    return JsonResponse(_model(await _route(await caller_of(request), name)))


@endpoint("POST")
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    """A chat, streamed or not."""
    return await _complete(request, ChatBody, "/v1/chat/completions")


@endpoint("POST")
async def completions(request: HttpRequest) -> HttpResponseBase:
    """The continuation of a text, streamed or not."""
    return await _complete(request, CompletionBody, "/v1/completions")


@login_not_required
@csrf_exempt
async def unknown(request: HttpRequest, path: str) -> HttpResponse:
    """Everything else below /v1/: not passed on to any engine."""
    return GatewayError(
        404, f"There is no /v1/{path} here. Known are models, chat/completions and completions."
    ).response()


async def _complete(request: HttpRequest, kind: type[Body], path: str) -> HttpResponseBase:
    caller = await caller_of(request)
    body = parse(kind, _data(request))
    route = await _route(caller, body.model)
    tokens, dollars = most_of(
        caller.terms, route, prompt=body.most_prompt_tokens if caller.terms.reserves else 0, answer=body.most_answer_tokens,
        num_answers=body.n or 1,
    )  # fmt: skip
    slot = LIMITS.enter(caller.key_id, caller.terms, tokens=tokens, dollars=dollars)
    booking = Booking(caller, route, slot, request.META[REQUEST_ID])
    _close_with_request(booking)
    try:
        exchange = booking.exchange = await open_exchange(route, path, body.upstream())
        if not body.stream:
            answer = await exchange.json()
            await exchange.close()
            booking.close(200)
            return JsonResponse(answer)
    except GatewayError as error:
        booking.revision_id = error.revision_id
        await _abandon(booking, error.status)
        raise
    except BaseException:
        await _abandon(booking, CLIENT_LEFT)
        raise
    events = _events(exchange, booking, body)
    return StreamingHttpResponse(
        events, content_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )


def _close_with_request(booking: Booking) -> None:
    """However the request ends, its booking ends: a stream that is never begun runs no `finally` of its own."""
    task = asyncio.current_task()
    assert task is not None, "a view runs in the task of its request"
    task.add_done_callback(lambda _task: booking.abandon())


async def _events(exchange: Exchange, booking: Booking, body: Body) -> AsyncGenerator[bytes, None]:
    """The stream with its book-keeping; a client that leaves cancels it here, and the engine with it."""
    status = CLIENT_LEFT
    try:
        stream = exchange.stream(keep_usage=body.wants_usage, keep_counts=body.wants_counts)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                yield piece
        status = exchange.status
    finally:
        await _abandon(booking, status)


async def _abandon(booking: Booking, status: int) -> None:
    if booking.exchange is not None:
        await booking.exchange.close()
    booking.close(status)


def _data(request: HttpRequest) -> bytes:
    if int(request.headers.get("Content-Length") or 0) > MAX_BYTES:
        raise GatewayError(413, f"The body is longer than {MAX_BYTES} bytes. Send less.")
    try:
        return request.body
    except RequestDataTooBig:
        raise GatewayError(413, f"The body is longer than {MAX_BYTES} bytes. Send less.") from None


async def _route(caller: Caller, name: str) -> Route:
    """The model, if the caller may see it; that of another project does not exist."""
    route = await TABLE.get(name)
    if route is None or route.project_id not in caller.projects:
        message = (
            f"There is no model “{name[:100]}”, or your key does not reach it. GET /v1/models lists those you can use."
        )
        raise GatewayError(404, message, code="model_not_found", param="model")
    return route


def _answers(route: Route) -> bool:
    return bool(route.upstreams) or route.starts_for_a_request


def _model(route: Route) -> dict[str, Any]:
    return {
        "id": route.name, "object": "model", "created": route.created, "owned_by": route.owner, "state": route.state,
    }  # fmt: skip
