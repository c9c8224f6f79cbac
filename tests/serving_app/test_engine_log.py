"""What the built-in engine writes for the log on the deployment's page: start, ready, and each request that failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from model_core.serving.backend import FakeBackend, ModelBackend, say
from model_core.serving.protocol import GIVES_UP, given_up
from model_core.serving.server import app
from tests.model_core.serving.conftest import model_dir
from tests.serving_app.conftest import until

__all__ = ["model_dir"]


def test_the_start_and_the_readiness_are_one_line_each(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = ModelBackend(model_dir, num_rows=2, num_threads=1, device="cpu")
    try:
        until(lambda: backend.phase == "ready", seconds=60)
        lines: list[str] = []
        until(lambda: len(lines.extend(capsys.readouterr().err.splitlines()) or lines) == 2)
    finally:
        backend.close()
    start, ready = lines
    assert str(model_dir) in start and "on cpu with 1 thread;" in start
    assert re.search(r"Ready after [\d.]+ s: [\d,]+ parameters, a context of 128 tokens", ready)


def test_each_request_that_failed_is_one_line_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend(context=16)
    client = TestClient(app(backend, served_name="echo", api_key="", watch=lambda _backend: None))
    body = {"model": "echo", "max_tokens": 2}
    for text in ("hi", "too long for that context"):
        client.post("/v1/chat/completions", json={**body, "messages": [{"role": "user", "content": text}]})
    (line,) = capsys.readouterr().err.splitlines()
    assert "A request failed with 400: The prompt has 25 tokens" in line


def test_nothing_that_was_asked_can_look_like_a_line_of_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"refused: x\n{GIVES_UP}damaged\r\n{GIVES_UP}" + "y" * 5000)
    written = capsys.readouterr().err
    assert given_up(written) == "" and len(written.splitlines()) == 1 and len(written) < 1100
