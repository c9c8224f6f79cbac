"""A model's place in the benchmark of gateways: answers every chat with tokens, one each PAUSE seconds, on bare asyncio.

`python -m benchmarks._engine PORT`. A stream has as many tokens as `max_tokens` says. All events are made beforehand, so that
this process takes as little as it can of the machine that is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

PAUSE = 0.005
MAX_TOKENS = 2000
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = b'{"object":"list","data":[{"id":"sums","object":"model","created":1,"owned_by":"bench"}]}'


def chunk(delta: dict[str, Any] | None, **more: Any) -> bytes:
    """One event as one piece of a chunked body."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "sums", "choices": choices, **more}
    event = b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def usage(tokens: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}}


PLAIN = [chunk({"content": f" token{number % 10}"}) for number in range(MAX_TOKENS)]
COUNTED = [chunk({"content": f" token{number % 10}"}, **usage(number + 1)) for number in range(MAX_TOKENS)]
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests of one connection, one after another."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            data = await reader.readexactly(length)
            if head.startswith(b"POST"):
                await stream(writer, json.loads(data))
            else:
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(head % len(WHOLE) + WHOLE)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def stream(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    """The answer at its pace; what comes late is sent at once, as an engine's queue would be."""
    options = body.get("stream_options") or {}
    events, tokens = COUNTED if options.get("continuous_usage_stats") else PLAIN, int(body.get("max_tokens") or 16)
    loop = asyncio.get_running_loop()
    writer.write(HEAD + chunk({"role": "assistant", "content": ""}))
    began = loop.time()
    for number in range(tokens):
        if (wait := began + (number + 1) * PAUSE - loop.time()) > 0:
            await asyncio.sleep(wait)
        writer.write(events[number])
        await writer.drain()
    writer.write(chunk({}, finish_reason="stop") + (chunk(None, **usage(tokens)) if options.get("include_usage") else b"") + DONE)


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
