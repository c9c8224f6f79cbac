"""The load that benchmarks make, against a server whose pace is known: every token counted, every delay seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median

import pytest

from model_core.errors import EngineError
from model_core.serving.load import Asked, Connection, Level, Target, run_level, spread, stream_body

WAIT, PAUSE = 0.06, 0.02
Pace = Callable[[dict[str, object]], list[tuple[float, bytes]]]
"""What is sent to a body: seconds before each piece, and the piece."""


def event(text: str, counted: int | None = None) -> bytes:
    usage = {"usage": {"prompt_tokens": 9, "completion_tokens": counted}} if counted is not None else {}
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}], **usage}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def server(pace: Pace, *, status: int = 200) -> AsyncIterator[Target]:
    """Answers every request of every connection at that pace, in chunks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(size))
                writer.write(b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\n\r\n" % status)
                for seconds, piece in pace(body):
                    await asyncio.sleep(seconds)
                    if not piece:
                        return
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with made:
        yield Target(f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}", "k")


def paced(body: dict[str, object]) -> list[tuple[float, bytes]]:
    num = int(str(body["max_tokens"]))
    return [(WAIT, event("a", 1)), *((PAUSE, event("b", number + 2)) for number in range(num - 1)), (0, DONE)]


def body_of(tokens: int) -> bytes:
    return stream_body("m", "hello", max_tokens=tokens)


async def once(target: Target, tokens: int) -> Asked:
    connection = Connection(target)
    try:
        return await connection.ask(body_of(tokens))
    finally:
        connection.close()


async def test_every_token_is_counted_and_every_delay_is_seen() -> None:
    async with server(paced) as target:
        connection = Connection(target)
        first, second = [await connection.ask(body_of(6)) for _ in range(2)]
        connection.close()
    for asked in (first, second):
        assert asked.completion_tokens == 6 and len(asked.gaps) == 5 and asked.prompt_tokens == 9 and not asked.error
        assert asked.ttft_seconds is not None and asked.seconds is not None
        last = asked.ttft_seconds + sum(asked.gaps)
        assert asked.ttft_seconds >= WAIT and WAIT + 5 * PAUSE <= last <= asked.seconds, "nothing is seen before it was sent"
    assert min(asked.ttft_seconds or 1 for asked in (first, second)) < WAIT + 0.05
    assert median([*first.gaps, *second.gaps]) == pytest.approx(PAUSE, abs=0.01)


async def test_tokens_that_come_together_share_the_time_and_events_count_where_counts_are_not_told() -> None:
    def three_at_once(_body: object) -> list[tuple[float, bytes]]:
        return [(0, event("a", 1)), (0.09, event("bcd", 4)), (0, DONE)]

    def uncounted(_body: object) -> list[tuple[float, bytes]]:
        cut = event("second")
        return [(0, event("")), (0, event("first") + cut[:10]), (0.02, cut[10:]), (0, DONE)]

    async with server(three_at_once) as target:
        asked = await once(target, 4)
    assert asked.completion_tokens == 4 and len(asked.gaps) == 3
    assert len(set(asked.gaps)) == 1 and 0.02 <= asked.gaps[0] < 0.06
    async with server(uncounted) as target:
        asked = await once(target, 2)
    assert asked.completion_tokens == 2 and len(asked.gaps) == 1


async def test_so_many_run_at_once_until_all_are_asked() -> None:
    running = [0, 0]

    def seen(body: dict[str, object]) -> list[tuple[float, bytes]]:
        running[0] += 1
        running[1] = max(running)
        return [*paced(body)[:-1], (0, b"".join([DONE, b": ", b"\n\n"]))]

    async with server(seen) as target:
        level = Level(4, 10)
        await run_level(level, [target], lambda number: body_of(2 + number % 2), seconds=30)
    assert len(level.asked) == level.num_ended == 10 and not level.is_cut
    assert sum(asked.completion_tokens for asked in level.asked) == 25
    assert level.seconds >= 3 * (WAIT + PAUSE), "ten requests four at once are three rounds"
    assert level.seconds < 10 * (WAIT + PAUSE), "and not ten"


async def test_what_runs_when_the_time_is_over_is_cut_and_its_tokens_count() -> None:
    async with server(paced) as target:
        level = Level(2, 50)
        await run_level(level, [target], lambda _number: body_of(1000), seconds=0.3)
    assert level.is_cut and len(level.asked) == 2 and level.num_ended == 0 and 0.3 <= level.seconds < 1
    assert all(asked.completion_tokens > 1 and asked.seconds is None and not asked.error for asked in level.asked)


@pytest.mark.parametrize(("pieces", "words"), [
    ([(0.0, event("a", 1)), (0.0, DONE[:-4])], "ended before its last event"),
    ([(0.0, event("a", 1)), (0.0, b"")], "broke off"),
])  # fmt: skip
async def test_a_server_that_breaks_off_ends_the_level(pieces: list[tuple[float, bytes]], words: str) -> None:
    async with server(lambda _body: pieces) as target:
        with pytest.raises(EngineError, match=words):
            await run_level(Level(2, 4), [target], lambda _number: body_of(4), seconds=30)
    with pytest.raises(EngineError, match="cannot be reached"):
        await once(target, 4)


async def test_a_refusal_is_kept_in_the_servers_words_and_the_connection_goes_on() -> None:
    refusal = json.dumps({"error": {"message": "The engine is full."}}).encode()
    async with server(lambda _body: [(0, refusal)], status=429) as target:
        connection = Connection(target)
        assert [(await connection.ask(body_of(4))).error for _ in range(2)] == ["429: The engine is full."] * 2
        connection.close()
    broken = b'data: {"error": {"message": "It has failed."}}\n\n'
    async with server(lambda _body: [(0, event("a", 1) + broken)]) as target:
        asked = await once(target, 4)
    assert asked.error == "It has failed." and asked.seconds is None


def test_percentiles_lie_between_values_in_proportion() -> None:
    assert spread([]) is None
    assert spread([3.0]) == {"mean": 3.0, "p50": 3.0, "p90": 3.0, "p99": 3.0}
    found = spread([float(value) for value in range(101)][::-1])
    assert found == {"mean": 50.0, "p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert spread([1.0, 2.0]) == {"mean": 1.5, "p50": 1.5, "p90": pytest.approx(1.9), "p99": pytest.approx(1.99)}
