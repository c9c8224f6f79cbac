"""Asks a server in this process, without a network: the answer, the events of a stream, and what they add up to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from model_core.errors import EngineError
from model_core.serving.backend import Backend, FakeBackend, Piece, Sampling
from model_core.serving.server import app


class Breaking(FakeBackend):
    """An echo that breaks down after `num_pieces`."""

    def __init__(self, num_pieces: int) -> None:
        super().__init__()
        self.num_pieces = num_pieces

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        async for piece in super().generate(prompt, sampling):
            if piece.num_tokens > self.num_pieces:
                raise EngineError("The engine has failed: it was told to.")
            yield piece


def call(backend: Backend, method: str, path: str, *, key: str = "", bearer: str | None = None, **given: Any) -> httpx.Response:
    """One request; `bearer` is the header, `key` what the server wants."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app(backend, served_name="tiny", api_key=key, watch=lambda _backend: None))
        headers = {} if bearer is None else {"Authorization": bearer}
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            return await client.request(method, path, headers=headers, **given)

    return asyncio.run(send())


def chat(backend: Backend, text: str, **values: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, **values}
    return call(backend, "POST", "/v1/chat/completions", json=body)


def complete(backend: Backend, text: str, **values: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": text, "temperature": 0, **values}
    return call(backend, "POST", "/v1/completions", json=body)


def events(answer: httpx.Response) -> list[Any]:
    """The events of a stream; the mark of its end is the string."""
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream"), answer.text
    lines = answer.text.split("\n\n")
    assert lines.pop() == "" and all(line.startswith("data: ") and "\n" not in line for line in lines)
    found = [line.removeprefix("data: ") for line in lines]
    return [line if line == "[DONE]" else json.loads(line) for line in found]


def added_up(chunks: list[Any]) -> dict[str, Any]:
    """What a stream says when it is put together: reasoning, content or text, and how it ends."""
    whole: dict[str, Any] = {"reasoning_content": "", "content": "", "text": "", "finish_reason": None}
    for choice in (choice for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]):
        for name, value in [*choice.get("delta", {}).items(), ("text", choice.get("text", ""))]:
            if name in whole:
                whole[name] += value
        whole["finish_reason"] = choice["finish_reason"] or whole["finish_reason"]
    return whole
