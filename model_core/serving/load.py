"""Streams asked of an OpenAI-compatible server and timed: the load that a benchmark makes.

Bare asyncio, because whoever makes a load takes its part of the machine that is measured. A `Connection` asks one stream after
another; `run_level` keeps so many of them busy at once. What is asked and what becomes of the figures is the caller's.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from model_core.errors import EngineError
from model_core.serving.protocol import EVENT_TEXT

PATH = "/v1/chat/completions"
STREAM_OPTIONS = {"include_usage": True, "continuous_usage_stats": True}
"""Counts in every event, as the gateway asks for them: an event may hold several tokens."""
MAX_READ = 1 << 16
PERCENTS = (50, 90, 99)
_BORDER = b"\n\n"
_COMPLETION = re.compile(rb'"completion_tokens": ?(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens": ?(\d+)')
_ERROR = re.compile(rb'^data: ?(\{"error".*)$', re.MULTILINE)
_BREAKS = (OSError, EOFError, asyncio.LimitOverrunError, ValueError)
"""What is raised of a server that is gone, breaks off, or speaks no HTTP."""


@dataclass(frozen=True)
class Target:
    """A server and its key."""

    base_url: str
    key: str


@dataclass
class Asked:
    """One stream as it was seen, filled in while it comes. Units: seconds since its first byte was sent."""

    began: float
    """On `time.perf_counter`."""
    ttft_seconds: float | None = None
    """To the first token, of thinking or answer."""
    seconds: float | None = None
    """To its end; None: it was cut, or refused."""
    gaps: array[float] = field(default_factory=lambda: array("d"))
    """Between one token and the next: n that came together each have one nth of the time since those before."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the server counts; as many as there were events with text where it does not."""
    error: str = ""
    """Why it was refused or ended badly, as a sentence."""
    _at: float = 0.0

    def take(self, events: bytes) -> None:
        """Whole events that came together."""
        now = time.perf_counter()
        counts = _COMPLETION.findall(events)
        total = int(counts[-1]) if counts else self.completion_tokens + len(EVENT_TEXT.findall(events))
        if prompts := _PROMPT.findall(events):
            self.prompt_tokens = int(prompts[-1])
        new = total - self.completion_tokens
        if new <= 0:
            return
        if self.ttft_seconds is None:
            self.ttft_seconds = now - self.began
        else:
            self.gaps.extend([(now - self._at) / new] * new)
        self.completion_tokens, self._at = total, now


class Connection:
    """One connection to a server, opened when it is needed and kept between streams."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.base_url)
        assert parts.scheme == "http" and parts.hostname and parts.port, "engines are asked by address and port"
        self.host, self.port = parts.hostname, parts.port
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {target.key}\r\n"
            "content-type: application/json\r\naccept-encoding: identity\r\ncontent-length: "
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects where it is not connected. Raises EngineError when nobody answers there."""
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(self.host, self.port)
            except OSError as error:
                raise EngineError(f"The engine at {self.host}:{self.port} cannot be reached: {error}.") from error
        return self._streams

    async def ask(self, body: bytes, asked: Asked | None = None) -> Asked:
        """One stream to its end, written into `asked`. A refusal is its `error`.

        Raises EngineError when the server breaks off: then there is nothing more to measure there.
        """
        reader, writer = await self.open()
        whole = False
        asked = asked or Asked(0.0)
        asked.began = time.perf_counter()
        try:
            writer.write(self._head + b"%d\r\n\r\n" % len(body) + body)
            status, headers = _head_of(await reader.readuntil(b"\r\n\r\n"))
            pieces = _content(reader, headers)
            if status != 200:
                asked.error = _refusal(status, b"".join([piece async for piece in pieces]))
            else:
                await _follow(pieces, asked)
            whole = True
        except _BREAKS as error:
            raise EngineError(f"The engine at {self.host}:{self.port} broke off: {error or type(error).__name__}.") from error
        finally:
            if not whole:
                self.close()
        return asked

    def close(self) -> None:
        """Cuts it; an engine whose reader is gone stops generating."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Level:
    """So many streams at once, as they were seen. Filled in while it runs."""

    concurrency: int
    num_requests: int
    """That were to be asked."""
    asked: list[Asked] = field(default_factory=list)
    """Every stream that was begun."""
    seconds: float = 0.0
    """From the first stream's beginning to the last one's end."""
    is_cut: bool = False
    """Its time was over before all were asked; streams that ran then are cut."""

    @property
    def num_ended(self) -> int:
        """Streams that are over, well or badly; from any thread."""
        return sum(one.seconds is not None or bool(one.error) for one in list(self.asked))


async def run_level(level: Level, targets: Sequence[Target], body: Callable[[int], bytes], *, seconds: float) -> None:
    """Keeps `level.concurrency` streams running until all are asked or `seconds` are over; what runs then is cut.

    `body` makes the nth request. Connections go round the targets and are open before the clock starts. Raises EngineError
    when one of the servers breaks off.
    """
    connections = [Connection(targets[place % len(targets)]) for place in range(level.concurrency)]
    numbers = iter(range(level.num_requests))

    async def work(connection: Connection) -> None:
        for number in numbers:
            asked = Asked(0.0)
            level.asked.append(asked)
            await connection.ask(body(number), asked)

    running: list[asyncio.Task[None]] = []
    try:
        for connection in connections:
            await connection.open()
        began = time.perf_counter()
        running += [asyncio.create_task(work(connection)) for connection in connections]
        await _until_done(running, seconds)
        level.is_cut = any(not task.done() for task in running)
        level.seconds = time.perf_counter() - began
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for connection in connections:
            connection.close()


async def _until_done(running: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Waits for all, for one that fails, which is raised, or for the time."""
    done, _left = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def stream_body(model: str, prompt: str, **settings: object) -> bytes:
    """A chat of one question, streamed, with counts in every event; a setting that is None is left out."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": model, "messages": messages, "stream": True, "stream_options": STREAM_OPTIONS, **settings}
    body = {name: value for name, value in body.items() if value is not None}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles ("mean", "p50", "p90", "p99"), between two values in proportion; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {"mean": sum(ordered) / len(ordered)} | {f"p{percent}": _percentile(ordered, percent) for percent in PERCENTS}


def _percentile(ordered: Sequence[float], percent: int) -> float:
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


async def _follow(pieces: AsyncIterator[bytes], asked: Asked) -> None:
    """Reads the events of an answer to its end. Raises EOFError when the end does not come."""
    tail, done = b"", False
    async for piece in pieces:
        data = tail + piece
        cut = data.rfind(_BORDER) + len(_BORDER)
        if cut < len(_BORDER):
            tail = data
            continue
        events, tail = data[:cut], data[cut:]
        asked.take(events)
        done = done or b"data: [DONE]" in events
        if found := _ERROR.search(events):
            asked.error = _refusal(0, found[1])
    if asked.error:
        return
    if not done:
        raise EOFError("the stream ended before its last event")
    asked.seconds = time.perf_counter() - asked.began


def _head_of(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers, whose names are in small letters. Raises ValueError."""
    first, *lines = head.split(b"\r\n")
    headers = dict(line.lower().split(b":", 1) for line in lines if line)
    return int(first.split(b" ", 2)[1]), headers


async def _content(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    """The body as it comes, without the frames of its chunks; what came together comes together."""
    if b"chunked" not in headers.get(b"transfer-encoding", b""):
        yield await reader.readexactly(int(headers.get(b"content-length", b"0")))
        return
    held, last = b"", False
    while not last:
        data = await reader.read(MAX_READ)
        if not data:
            raise EOFError("the connection was closed")
        content, held, last = _unframed(held + data)
        if content:
            yield content


def _unframed(data: bytes) -> tuple[bytes, bytes, bool]:
    """(content of the whole chunks, what follows them, whether the last chunk was among them). Raises ValueError."""
    found: list[bytes] = []
    at = 0
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line].partition(b";")[0], 16)
        end = line + 2 + size
        if len(data) < end + 2:
            break
        if not size:
            return b"".join(found), b"", True
        found.append(data[line + 2 : end])
        at = end + 2
    return b"".join(found), data[at:], False


def _refusal(status: int, data: bytes) -> str:
    """The server's own sentence."""
    try:
        said = json.loads(data)
        said = said.get("error", said)
        message = str(said.get("message") or said.get("detail") or "") if isinstance(said, dict) else str(said)
    except (ValueError, AttributeError):
        message = data[:200].decode(errors="replace")
    return f"{status}: {message[:500]}" if status else message[:500]
