"""kill -9 of the web process and of Redis in the middle of answers: what came is kept, what was used is booked, nothing is held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from r1platform.demo.stack import free_port
from r1platform.keys import api_key_create
from r1platform.lib.embedded import Redis
from r1platform.models import Project
from serving_app import services
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, Message, Price, UsageRecord
from serving_app.states import GENERATION_ENDS
from serving_app.tasks import SILENT_ANSWER, reap_answers, reap_requests
from tests.home import HOME
from tests.serving_app.conftest import Served, key_of, until
from tests.serving_app.engine_server import Engine
from tests.serving_app.test_gateway import ask, chat

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]
ENDLESS = "count 100000 0.02"


class Web:
    """The platform's web as a process of its own, on the database of the test."""

    def __init__(self, redis_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        database = connection.settings_dict
        address = f"postgres://postgres@/{database['NAME']}?host={database['HOST']}"
        argv = [sys.executable, "-m", "uvicorn", "r1platform.asgi:application", "--port", str(self.port), "--lifespan", "off"]
        env = {**os.environ, "DATABASE_URL": address, "REDIS_URL": redis_url}
        self.child = subprocess.Popen(argv, cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
        until(self._answers, seconds=60)

    def kill(self) -> None:
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait(10)

    def _answers(self) -> bool:
        assert self.child.poll() is None, "the web ended at once"
        try:
            return httpx.get(f"{self.url}/livez", timeout=5).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def webs(redis_url: str) -> Iterator[list[Web]]:
    """Makes a web when one is wanted: `webs.append(Web(…))`; none is left."""
    made: list[Web] = []
    yield made
    for one in made:
        if one.child.poll() is None:
            one.kill()


@pytest.mark.slow
def test_a_killed_web_leaves_answers_interrupted_usage_right_and_no_slot_held(
    webs: list[Web], redis_url: str, project: Project, alice: User, deployment: Deployment, engine: Engine
) -> None:
    Price.objects.create(deployment=deployment, input_dollars=Decimal(1000), output_dollars=Decimal(1000))
    limits = {"concurrent_requests": 2, "dollars_per_month": Decimal(10)}
    key, text = api_key_create(user=alice, name="k", scopes=("read", "write", "inference"), project=project, **limits)
    conversation = services.conversation_create(
        project=project, user=alice, deployment=deployment, parameters={"max_tokens": 5000}
    )
    webs.append(Web(redis_url))
    headers = {"Authorization": f"Bearer {text}"}
    url = f"{webs[0].url}/api/v1/conversations/{conversation.pk}/messages/"
    said = httpx.post(url, json={"content": ENDLESS}, headers=headers, timeout=30)
    assert said.status_code == 201, said.text
    message = Message.objects.get(pk=said.json()["assistant"]["id"])
    body = chat(ENDLESS, stream=True, max_tokens=4000)
    with httpx.stream("POST", f"{webs[0].url}/v1/chat/completions", json=body, headers=headers, timeout=30) as stream:
        lines = stream.iter_lines()
        until(lambda: next(lines) and counted(key.pk) == 2 and Message.objects.filter(pk=message.pk).exclude(content="").exists())
        assert ask_at(webs[0], text).status_code == 429, "both of its slots are taken"
        webs[0].kill()
        with pytest.raises(httpx.TransportError):
            list(lines)
    until(lambda: engine.running == 0)
    booked = {row.pk: row.completion_tokens for row in UsageRecord.objects.filter(api_key=key.pk)}
    assert (reap_requests(), reap_answers()) == (0, 0), "it is not known yet that nobody is there any more"
    later = timezone.now() - SILENT_ANSWER - timedelta(seconds=1)
    UsageRecord.objects.update(heartbeat_at=later)
    Message.objects.filter(pk=message.pk).update(heartbeat_at=later)
    assert (reap_requests(), reap_answers()) == (2, 1)
    message.refresh_from_db()
    assert message.state == "interrupted" and message.content.startswith("0 1 ")
    rows = UsageRecord.objects.filter(api_key=key.pk)
    assert {row.status for row in rows} == {UsageRecord.INTERRUPTED} and {row.pk: row.completion_tokens for row in rows} == booked
    for row in rows:
        assert row.completion_tokens > 0 and row.cost_dollars == (row.prompt_tokens + row.completion_tokens) / Decimal(1000)
    webs.append(Web(redis_url))
    assert [ask_at(webs[1], text).status_code for _ in range(3)] == [200, 200, 200], "nothing is held"
    limit = sum(row.cost_dollars for row in rows) + Decimal("0.01")
    key.dollars_per_month = limit.quantize(Decimal("0.01"))
    key.save()
    refused = until(lambda: (got := ask_at(webs[1], text)).status_code == 429 and got, seconds=5)
    assert refused.json()["error"]["code"] in {"insufficient_quota", "dollars_reserved"}, "what the killed one spent counts"


def counted(key_id: int) -> int:
    """Running requests of the key that are in the table with at least 60 tokens."""
    return UsageRecord.objects.filter(api_key=key_id, status=UsageRecord.RUNNING, completion_tokens__gte=60).count()


def ask_at(web: Web, key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{web.url}/v1/chat/completions", json=chat("say hi", max_tokens=5), headers=headers, timeout=30)


def test_a_killed_redis_ends_no_answer(
    web: Served, project: Project, alice: User, deployment: Deployment, redis_url: str
) -> None:
    key = key_of(alice)
    conversation = services.conversation_create(project=project, user=alice, deployment=deployment)
    _said, answer = services.message_send(conversation=conversation, user=alice, content="count 60 0.02")
    body = chat("count 60 0.02", stream=True)
    with httpx.stream("POST", f"{web.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}) as stream:
        lines = stream.iter_lines()
        until(lambda: next(lines) and Message.objects.filter(pk=answer.pk).exclude(content="").exists())
        running = Redis(HOME).running()
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        text = "\n".join(lines)
    assert '"content":"59 "' in text and "data: [DONE]" in text
    until(lambda: Message.objects.filter(pk=answer.pk, state__in=GENERATION_ENDS).exists())
    answer.refresh_from_db()
    assert answer.state == "done" and answer.content.split()[-1] == "59"
    until(lambda: (USAGE.flush(), UsageRecord.objects.filter(status=200).count())[1] == 2)
    assert set(UsageRecord.objects.values_list("completion_tokens", flat=True)) == {60}
    assert ask(web, key, chat("say hi")).status_code == 200
