"""The gateway at its edges: clients that leave at any moment, engines that die of a prompt, a database that is away."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError

from r1platform.models import Project
from r1platform.web import LINGER_BYTES
from r1platform.web import web as whole_application
from serving_app.gateway import auth, limits, routing, usage, views
from serving_app.gateway.body import MAX_BYTES
from serving_app.gateway.proxying import close_client
from serving_app.gateway.routing import BUSY
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, Replica, UsageRecord
from tests.serving_app.conftest import Served, deploy, key_of, until
from tests.serving_app.engine_server import Engine
from tests.serving_app.test_gateway import ask, chat
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db(transaction=True)


def used() -> list[UsageRecord]:
    USAGE.flush()
    return list(UsageRecord.objects.exclude(status=UsageRecord.RUNNING).order_by("id"))


class Leaver:
    """An ASGI client that sends a body and leaves when it hears a message of type `at`."""

    def __init__(self, key: str, body: dict[str, Any], *, at: str) -> None:
        self.body, self.at = json.dumps(body).encode(), at
        self.gone, self.asked = asyncio.Event(), False
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())],
            "server": ("localhost", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == self.at:
            self.gone.set()
            await asyncio.Event().wait()  # nobody reads any more; the server has to cancel this


async def _until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("at", ["http.response.start", "http.response.body"])
async def test_a_client_that_leaves_before_or_in_the_stream_leaves_nothing(
    alice: User, deployment: Deployment, engine: Engine, monkeypatch: Any, at: str
) -> None:
    from r1platform.asgi import application

    counted = limits.Limits(requests_per_minute=100, concurrent=1)
    monkeypatch.setattr(views, "LIMITS", counted)
    key = await database_sync_to_async(key_of)(alice)
    leaver = Leaver(key, chat("count 10000 0.01", stream=True), at=at)
    await application(leaver.scope, leaver.receive, leaver.send)
    await _until(lambda: engine.aborted == 1 and engine.running == 0)
    record = (await database_sync_to_async(used)())[-1]
    assert record.status == views.CLIENT_LEFT and counted.running(record.api_key_id) == 0
    assert sum(BUSY.running.values()) == 0
    await close_client()


def test_a_client_that_leaves_while_it_waits_leaves_nothing(
    web: Served, alice: User, deployment: Deployment, monkeypatch: Any
) -> None:
    counted = limits.Limits(requests_per_minute=100, concurrent=1)
    monkeypatch.setattr(views, "LIMITS", counted)
    key = key_of(alice)
    headers = {"Authorization": f"Bearer {key}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{web.url}/v1/chat/completions", json=chat("count 1000 0.02"), headers=headers, timeout=0.5)
    record = until(used)[-1]
    assert record.status == views.CLIENT_LEFT and counted.running(record.api_key_id) == 0
    assert ask(web, key, chat("say hi")).status_code == 200


def test_no_more_than_the_allowed_number_run_at_the_same_time(
    web: Served, alice: User, deployment: Deployment, monkeypatch: Any
) -> None:
    monkeypatch.setattr(views, "LIMITS", limits.Limits(requests_per_minute=1000, concurrent=2))
    key = key_of(alice)
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key=key, max_retries=0) as client:
        streams = [client.chat.completions.create(**chat("count 5000 0.01"), stream=True) for _ in range(2)]
        answer = ask(web, key, chat("say hi"))
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "too_many_running"
        assert answer.headers["Retry-After"] == "1"
        streams[0].close()
        until(lambda: ask(web, key, chat("say hi")).status_code == 200)
        streams[1].close()


def test_an_answer_that_is_left_is_booked_as_the_engine_counted(web: Served, alice: User, deployment: Deployment) -> None:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key=key_of(alice), max_retries=0) as client:
        stream = client.chat.completions.create(**chat("count 5000 0.01"), stream=True)
        chunks = [next(stream) for _ in range(4)]
        stream.close()
    assert all(chunk.usage is None for chunk in chunks), "nobody asked for counts"
    record = until(used)[-1]
    assert record.prompt_tokens == 7 and record.completion_tokens >= 3 and record.reasoning_tokens == 2


def test_counts_in_every_event_come_to_who_asks(web: Served, alice: User, deployment: Deployment) -> None:
    options = {"include_usage": False, "continuous_usage_stats": True}
    answer = ask(web, key_of(alice), chat('say {"usage": ,"usage":{"a":1}}', stream=True, stream_options=options))
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    said = "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])
    assert said == '{"usage": ,"usage":{"a":1}} ', "what looks like counts in the answer is left alone"
    assert [event["usage"]["completion_tokens"] for event in events if "usage" in event] == [1, 2]


class Crasher:
    """An engine that takes a request and closes the connection without an answer, as one does that dies of a prompt."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                if connection.recv(65536):
                    self.num_asked += 1

    def stop(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)


@pytest.fixture
def crasher() -> Iterator[Crasher]:
    made = Crasher()
    yield made
    made.stop()


def test_a_prompt_that_ends_an_engine_is_not_sent_to_the_next(
    web: Served, alice: User, project: Project, checkpoint: Checkpoint, engine: Engine, crasher: Crasher
) -> None:
    deploy(project, checkpoint, urls=(crasher.url, engine.url))  # type: ignore[attr-defined]
    key = key_of(alice)
    found = [ask(web, key, chat(f"say {number}")) for number in range(24)]  # each opening has its own first replica
    failed = [answer for answer in found if answer.status_code != 200]
    assert failed and all(answer.status_code == 502 and "broke off" in answer.text for answer in failed)
    assert crasher.num_asked == len(failed) and len(engine.bodies) == 24 - len(failed)


def test_a_replica_that_has_moved_is_found_by_reading_the_table_anew(
    web: Served, alice: User, deployment: Deployment, engine: Engine, monkeypatch: Any
) -> None:
    monkeypatch.setattr(routing, "FRESH_SECONDS", 1000.0)
    monkeypatch.setattr(routing, "STALE_SECONDS", 1000.0)
    replica = Replica.objects.get()
    Replica.objects.update(base_url="http://127.0.0.1:9")
    key = key_of(alice)
    assert ask(web, key, chat("say hi")).status_code == 502
    Replica.objects.update(base_url=replica.base_url)
    assert ask(web, key, chat("say hi")).status_code == 200
    Replica.objects.update(state="stopped", finished_at=replica.ready_at, base_url="http://127.0.0.1:9")
    assert ask(web, key, chat("say hi")).status_code == 200, "nobody says that it is gone before it is"


def test_a_long_body_is_refused_while_it_is_received() -> None:
    async def application(_scope: Any, receive: Any, _send: Any) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass

    received, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b" " * (1 << 20), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    def call(headers: list[tuple[bytes, bytes]]) -> None:
        scope = {"type": "http", "path": "/v1/chat/completions", "headers": headers}
        asyncio.run(whole_application(application, application)(scope, receive, send))

    read_away = (LINGER_BYTES >> 20) + 1  # so that the sender sees the answer, which has gone out before
    call([])
    assert received == (MAX_BYTES >> 20) + 1 + read_away
    received = 0
    call([(b"content-length", str(MAX_BYTES + 1).encode())])
    assert received == read_away, "a length that is told is believed"
    assert [message["status"] for message in sent if "status" in message] == [413, 413]
    assert json.loads(sent[1]["body"])["error"]["type"] == "invalid_request_error"


def test_a_database_that_is_away_is_503_in_openais_shape(
    web: Served, alice: User, deployment: Deployment, monkeypatch: Any
) -> None:
    key = key_of(alice)

    def away(_secret: str) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(auth, "_look_up", away)
    for answer in (ask(web, key, chat("say hi")), httpx.get(f"{web.url}/v1/models", headers={"Authorization": f"Bearer {key}"})):
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert answer.json()["error"]["code"] == "database_away" and answer.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize("stop", ["a\x00b", ["x", "\x00"]])
def test_a_stop_that_cannot_be_kept_is_refused_at_its_field(
    web: Served, alice: User, deployment: Deployment, engine: Engine, stop: Any
) -> None:
    answer = ask(web, key_of(alice), chat("say hi", stop=stop))
    assert answer.status_code == 400 and "zero byte" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"].startswith("stop") and engine.bodies == []


@pytest.mark.django_db(transaction=True)
def test_usage_is_written_by_a_thread_of_its_own_that_ends_when_nothing_comes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "FLUSH_SECONDS", 0.02)
    writer = usage.UsageWriter()
    writer.add(UsageRecord(project=project, model_name="sums", status=200))
    thread = writer._thread
    assert thread is not None
    until(lambda: UsageRecord.objects.filter(model_name="sums").exists())
    until(lambda: not thread.is_alive())
    writer.add(UsageRecord(project=project, model_name="sums", status=200))
    until(lambda: UsageRecord.objects.filter(model_name="sums").count() == 2)
    until(lambda: writer._thread is not None and not writer._thread.is_alive())
