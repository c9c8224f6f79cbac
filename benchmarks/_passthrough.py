"""The least that a gateway can be: starlette and httpx, one HTTP client, pieces passed on as they come. No key, no count."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

client = httpx.AsyncClient(base_url=os.environ.get("BENCH_ENGINE", ""), timeout=60, limits=httpx.Limits(max_connections=None))


async def chat(request: Request) -> Response:
    """Sends the body on and streams the answer back."""
    headers = {"content-type": "application/json"}
    asked = client.build_request("POST", "/v1/chat/completions", content=await request.body(), headers=headers)
    answer = await client.send(asked, stream=True)

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in answer.aiter_raw():
                yield piece
        finally:
            await answer.aclose()

    return StreamingResponse(pieces(), status_code=answer.status_code, media_type="text/event-stream")


async def models(_request: Request) -> Response:
    return Response((await client.get("/v1/models")).content, media_type="application/json")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)])
