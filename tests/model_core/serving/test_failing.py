"""The built-in engine when it breaks: those who wait are told, nobody waits for ever, and the process ends with code 1."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from model_core.errors import EngineError
from model_core.serving.backend import ModelBackend, Sampling
from model_core.serving.engines import ENGINES
from model_core.serving.protocol import given_up
from model_core.serving.server import app
from tests.model_core.forked import FORKS

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "17 + 25"}], "max_tokens": 20, "temperature": 0}


def break_when_asked(model_dir: Path, port: int, log: Path) -> None:
    """A process that serves a model without a head."""
    to = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(to, 1)
    os.dup2(to, 2)
    backend = ModelBackend(model_dir, num_rows=2, num_threads=1)
    until(lambda: backend.phase != "loading")
    backend.sampler.model.lm_head = None  # type: ignore[assignment]
    uvicorn.run(app(backend, served_name="tiny", api_key=""), port=port, log_level="warning", lifespan="off")


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health(port: int) -> int:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code
    except httpx.HTTPError:
        return 0


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that do not outlive the test."""
    made: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(argv, **options))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait(10)


@pytest.fixture
def broken(model_dir: Path, tmp_path: Path) -> Iterator[tuple[ForkServerProcess, int]]:
    """The process of `break_when_asked`, which answers, and its port."""
    port = free_port()
    process = FORKS.Process(target=break_when_asked, args=(model_dir, port, tmp_path / "log"))
    process.start()
    until(lambda: health(port) == 200)
    yield process, port
    process.kill()
    process.join()


def test_a_step_that_fails_ends_the_process_and_tells_who_waits(broken: tuple[ForkServerProcess, int], tmp_path: Path) -> None:
    process, port = broken
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY, timeout=20)
    assert answer.status_code == 503 and "has failed" in answer.json()["error"]["message"]
    assert health(port) in {500, 0}, "dead or dying, never well"
    process.join(20)
    assert process.exitcode == 1
    assert "Traceback" in (tmp_path / "log").read_text() and not given_up((tmp_path / "log").read_text())


def test_a_damaged_checkpoint_ends_the_process_with_its_sentence(
    started: Any, model_dir: Path, tmp_path: Path
) -> None:
    damaged, port = tmp_path / "model", free_port()
    shutil.copytree(model_dir, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    engine = ENGINES.get("builtin")()
    command = engine.command(model_dir=damaged, port=port, served_name="tiny", api_key="", config=engine.Config())
    with (tmp_path / "log").open("wb") as log:
        process = started(command.argv, env={"PATH": "/usr/bin", **command.env}, stdout=log, stderr=log)
    phases = set()
    while process.poll() is None:
        phases.add(engine.is_ready(f"http://127.0.0.1:{port}", "", "tiny").phase)
    assert process.returncode == 1 and "ready" not in phases and phases <= {"starting", "loading", "failed"}
    assert "model.safetensors is damaged" in given_up((tmp_path / "log").read_text())


@pytest.fixture
def backend(model_dir: Path) -> Any:
    made = ModelBackend(model_dir, num_rows=1, num_threads=1)
    until(lambda: made.phase != "loading")
    assert made.phase == "ready", made.detail
    yield made
    made.close()


async def test_every_request_hears_of_the_failure(backend: ModelBackend) -> None:
    backend.sampler.model.lm_head = None  # type: ignore[assignment]

    async def ask() -> None:
        async for _piece in backend.generate([5, 6], Sampling(max_tokens=50)):
            pass

    found = await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(3)), return_exceptions=True), 10)
    assert [type(error) for error in found] == [EngineError] * 3
    assert backend.phase == "failed" and backend.broken.wait(5)


async def test_the_queue_is_limited_and_a_reader_who_leaves_it_makes_room(backend: ModelBackend) -> None:
    """Over ASGI: one decodes, one waits, the next is refused with the time to wait; the one that waits goes away."""
    backend.sampler.max_queued = 1
    step, blocked = backend.sampler.step, asyncio.Event()
    backend.sampler.step = lambda: step() if not blocked.is_set() else time.sleep(0.01) or True  # type: ignore[method-assign, func-returns-value]
    served = app(backend, served_name="tiny", api_key="", watch=lambda _backend: None)
    transport = httpx.ASGITransport(app=served)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        running = asyncio.create_task(client.post("/v1/completions", json=_text(max_tokens=100)))
        await _until(lambda: backend.sampler.running == 1)
        blocked.set()
        gone = asyncio.Event()
        waiting = asyncio.create_task(_call(served, gone))
        await _until(lambda: backend.sampler.queued == 1)
        full = await client.post("/v1/completions", json=_text())
        assert full.status_code == 503 and full.headers["Retry-After"] and "wait already" in full.json()["error"]["message"]
        gone.set()
        await _until(lambda: backend.sampler.queued == 0)
        await waiting
        blocked.clear()
        assert (await running).status_code == 200


def _text(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "17", "temperature": 0, "max_tokens": 5, **more}


async def _call(served: Any, gone: asyncio.Event) -> None:
    """A stream whose reader leaves when `gone` is set."""
    body = json.dumps(_text(stream=True)).encode()
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message: dict[str, Any]) -> None:
        """Nobody reads."""

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/completions",
        "raw_path": b"/v1/completions", "query_string": b"", "headers": [], "scheme": "http", "server": ("e", 80),
        "client": ("c", 1), "root_path": "",
    }  # fmt: skip
    await served(scope, receive, send)


async def _until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
