"""An engine for tests that does what the last message says: a real HTTP server, in a thread or as a process.

"say a b c"        answers "a b c", a word a piece       "think a b | c d"   thinks "a b", answers "c d"
"count 50 0.02"    50 numbers with pauses                "long"              400, the prompt is too long
"late 0.1 50 0.02" the same after a wait                  "full"              429
(an answer that has begun goes on "so on", after "closed" where it was thinking)
"die"              the process or the connection breaks off after two pieces       "fail"  500
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

GIVES_UP = "This engine gives up for good: "
MAX_PROMPT = 20_000


class Engine:
    """State of one server: what it was asked and how often a reader left."""

    def __init__(self, *, key: str, name: str, ready_after: float = 0.0, may_exit: bool = False) -> None:
        self.key = key
        self.name = name
        self.ready_at = time.monotonic() + ready_after
        self.may_exit = may_exit
        self.bodies: list[dict[str, Any]] = []
        self.running = 0
        self.aborted = 0
        self.broken = False
        self.failed = False

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.chat, methods=["POST"]),
                Route("/metrics", self.metrics),
            ]
        )

    async def models(self, request: Request) -> Response:
        if self.broken:
            return PlainTextResponse("hung", status_code=500)
        return JSONResponse({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    async def metrics(self, request: Request) -> Response:
        return JSONResponse({"running": self.running, "queued": 0, "tokens_per_second": 12.5})

    async def chat(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "wrong key"}}, status_code=401)
        if self.failed:
            return JSONResponse({"error": {"message": "failed"}}, status_code=500)
        if time.monotonic() < self.ready_at:
            return JSONResponse({"error": {"message": "loading"}}, status_code=503)
        body = json.loads(await request.body())
        self.bodies.append(body)
        chat = "messages" in body
        said = body["messages"][-1]["content"] if chat else body["prompt"]
        if body.get("continue_final_message"):
            said = "say closed </think>so on" if "</think>" not in said and said.startswith("<think>") else "say so on"
        if said == "long" or len(said) > MAX_PROMPT:
            message = f"The prompt has {max(len(said), 9000)} tokens; this model takes 128."
            return JSONResponse({"error": {"message": message, "code": "context_length_exceeded"}}, status_code=400)
        if said == "full":
            return JSONResponse({"error": {"message": "The engine is full."}}, status_code=429)
        if said == "fail":
            return JSONResponse({"error": {"message": "CUDA error"}}, status_code=500)
        if body.get("stream"):
            return StreamingResponse(self.events(body, said, chat), media_type="text/event-stream")
        if said.startswith("die"):
            self.exit()
        return JSONResponse(await self.whole(body, said, chat))

    async def whole(self, body: dict[str, Any], said: str, chat: bool) -> dict[str, Any]:
        text = {"reasoning": "", "content": ""}
        tokens = 0
        async for channel, piece in self.pieces(said):
            text[channel] += piece
            tokens += 1
        message = {"role": "assistant", "content": text["content"], "reasoning_content": text["reasoning"] or None}
        choice = {"message": message} if chat else {"text": text["content"]}
        choices = [{"index": 0, "finish_reason": "stop", **choice}]
        return {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices,
                "usage": self.usage(tokens)}  # fmt: skip

    async def events(self, body: dict[str, Any], said: str, chat: bool) -> AsyncIterator[bytes]:
        def event(delta: dict[str, Any] | None, **more: Any) -> bytes:
            base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            content = {"delta": delta} if chat else {"text": (delta or {}).get("content", "")}
            choices = (
                [] if delta is None else [{"index": 0, "finish_reason": None, **content, **more.pop("choice", {})}]
            )
            return (
                b"data: " + json.dumps({**base, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"
            )

        self.running += 1
        tokens, done = 0, False
        options = body.get("stream_options") or {}

        def counts() -> dict[str, Any]:
            return {"usage": self.usage(tokens)} if options.get("continuous_usage_stats") else {}

        try:
            yield event({"role": "assistant", "content": ""})
            async for channel, piece in self.pieces(said):
                tokens += 1
                scored = {"choice": {"logprobs": logprobs(piece)}} if body.get("logprobs") else {}
                yield event({"reasoning_content" if channel == "reasoning" else "content": piece}, **counts(), **scored)
                if said.startswith("die") and tokens == 2:
                    self.exit()
                    raise ConnectionResetError("told to die")
            yield event({}, choice={"finish_reason": "stop"})
            if options.get("include_usage"):
                yield event(None, usage=self.usage(tokens))
            yield b"data: [DONE]\n\n"
            done = True
        finally:
            self.running -= 1
            self.aborted += not done

    async def pieces(self, said: str) -> AsyncIterator[tuple[str, str]]:
        verb, _, rest = said.partition(" ")
        if verb == "late":
            wait, _, rest = rest.partition(" ")
            await asyncio.sleep(float(wait))
            verb = "count"
        if verb == "count":
            number, pause = rest.split()
            for n in range(int(number)):
                yield "content", f"{n} "
                await asyncio.sleep(float(pause))
            return
        thought, _, answer = rest.partition(" | ") if verb == "think" else ("", "", rest or said)
        if verb == "ponder":
            for n in range(1000):
                yield "reasoning", f"{n} "
                await asyncio.sleep(0.01)
        for word in thought.split():
            yield "reasoning", word + " "
        for word in answer.split() or ["nothing"]:
            yield "content", word + " "
            await asyncio.sleep(0)

    def usage(self, tokens: int) -> dict[str, int]:
        return {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens, "reasoning_tokens": 2}

    def exit(self) -> None:
        if self.may_exit:
            print("Segmentation fault in the last layer", flush=True)
            os._exit(3)


def logprobs(piece: str) -> dict[str, Any]:
    """A piece as one token, with another that would have been less likely."""
    likeliest = [{"token": piece, "logprob": -0.1}, {"token": "else ", "logprob": -2.5}]
    return {"content": [{"token": piece, "logprob": -0.1, "top_logprobs": likeliest}]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gives-up", action="store_true")
    parser.add_argument("--name", required=True)
    parser.add_argument("--ready-after", type=float, default=0.0)
    parser.add_argument("--crash", action="store_true")
    parser.add_argument("--stubborn", action="store_true")
    args = parser.parse_args()
    print("stub engine starts", flush=True)
    if args.crash:
        print("RuntimeError: size mismatch for lm_head.weight", flush=True)
        raise SystemExit(1)
    if args.stubborn:
        os.environ["STUBBORN"] = "1"
    if args.gives_up:
        print(f"{GIVES_UP}model.safetensors is damaged.", flush=True)
    engine = Engine(key=os.environ["STUB_KEY"], name=args.name, ready_after=args.ready_after, may_exit=True)
    engine.failed = args.gives_up
    server = uvicorn.Server(
        uvicorn.Config(engine.app(), host=args.host, port=args.port, log_level="error", lifespan="off")
    )
    if args.stubborn:
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        server.capture_signals = __import__("contextlib").nullcontext  # type: ignore[method-assign]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.run()


if __name__ == "__main__":
    main()
