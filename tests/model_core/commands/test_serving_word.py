"""`serve`: what is told to the server, and that what it serves is the engine; as a process it ends cleanly when told to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_core.commands import serve as word
from model_core.serving.backend import FakeBackend, ModelBackend
from tests.model_core.commands.conftest import Say

ROOT = Path(__file__).parents[3]


class Uvicorn:
    """Takes the application instead of serving it, and asks it `body` once it is ready."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.body: dict[str, Any] | None = None
        self.answer = httpx.Response(500)

    def __call__(self, application: Any, **options: Any) -> None:
        self.options = options
        if self.body is not None:
            self.answer = asyncio.run(self._ask(application, self.body))

    async def _ask(self, application: Any, body: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://engine") as client:
            async with asyncio.timeout(60):
                while (await client.get("/health")).status_code == 503:
                    await asyncio.sleep(0.01)
            return await client.post("/v1/completions", json=body, headers={"Authorization": "Bearer k"})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Uvicorn:
    taken = Uvicorn()
    monkeypatch.setattr("uvicorn.run", taken)
    monkeypatch.delenv(word.KEY, raising=False)
    return taken


def test_it_listens_on_the_loopback_address_unless_told_otherwise(served: Uvicorn, say: Say) -> None:
    assert say("serve", "fake").status == 0
    assert (served.options["host"], served.options["port"]) == ("127.0.0.1", 8100)
    assert say("serve", "fake", "--host", "::1", "--port", 8123).status == 0
    assert (served.options["host"], served.options["port"]) == ("::1", 8123)
    assert served.options["timeout_graceful_shutdown"] == 5, "requests that run get five seconds"


@pytest.mark.parametrize(("key", "status"), [("", 200), ("k", 200), ("other", 401)])
def test_the_key_comes_from_the_environment(
    key: str, status: int, served: Uvicorn, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(word.KEY, key)
    served.body = {"model": "mine", "prompt": "2+2"}
    assert say("serve", "fake", "--served-name", "mine").status == 0
    assert served.answer.status_code == status


@pytest.mark.parametrize(("model", "option", "value", "allowed"), [
    ("/m", "--max-running-requests", 0, "1"), ("/m", "--max-running-requests", 1025, "1024"), ("/m", "--num-threads", 0, "1"),
    ("/m", "--num-threads", -1, "1"), ("fake", "--pause", -1, "0"), ("fake", "--pause", "nan", "finite"), ("fake", "--port", 0, "1"),
    ("fake", "--port", 65536, "65535"), ("fake", "--port", -1, "1"),
])  # fmt: skip
def test_what_it_cannot_do_is_said_at_its_option(
    model: str, option: str, value: object, allowed: str, served: Uvicorn, say: Say
) -> None:
    """Without a row every request would wait for ever."""
    said = say("serve", model, option, value)
    assert said.status == 2 and said.err.startswith(f"ConfigError ({option[2:].replace('-', '_')}): ") and allowed in said.err
    assert str(value) in said.err and served.options == {}, "nothing was started"


def test_the_echo_takes_its_pause(served: Uvicorn, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Paused(FakeBackend):
        def __init__(self, *, pause: float) -> None:
            pauses.append(pause)
            super().__init__(pause=pause)

    monkeypatch.setattr("model_core.serving.backend.FakeBackend", Paused)
    for options in ([], ["--pause", "0.5"]):
        assert say("serve", "fake", *options).status == 0
    assert pauses == [0.0, 0.5]


def test_a_model_answers_and_its_thread_ends_with_the_server(
    checkpoint: Path, served: Uvicorn, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ModelBackend] = []

    class Seen(ModelBackend):
        def __init__(self, *given: Any, **named: Any) -> None:
            made.append(self)
            super().__init__(*given, **named)

    monkeypatch.setattr("model_core.serving.backend.ModelBackend", Seen)
    served.body = {"model": "r1", "prompt": "17", "max_tokens": 3, "temperature": 0}
    assert say("serve", checkpoint / "model", "--max-running-requests", 3, "--num-threads", 1).status == 0
    (backend,) = made
    assert served.answer.json()["usage"]["completion_tokens"] <= 3 and served.answer.status_code == 200
    assert (backend.num_rows, backend.num_threads, backend.model_dir) == (3, 1, checkpoint / "model")
    assert not backend._thread.is_alive()


def test_a_process_that_is_told_to_end_lets_who_runs_finish() -> None:
    """An answer of nine words at 0.05 s each outlives the signal; the status is that of a clean end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "model_core", "serve", "fake", "--port", str(port), "--pause", "0.05"]
    process = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, word.KEY: "k"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not _is_up(port):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        body = {"model": "r1", "prompt": "a b c d e", "stream": True}
        url = f"http://127.0.0.1:{port}/v1/completions"
        with httpx.stream("POST", url, json=body, headers={"Authorization": "Bearer k"}, trust_env=False) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert process.wait(20) in {0, -signal.SIGTERM}
    finally:
        process.kill()
        assert b"Traceback" not in process.communicate(timeout=10)[1]


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
