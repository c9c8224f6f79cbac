"""The gateway as a client meets it: the openai package and plain HTTP against a real server and a real engine."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from r1platform.keys import api_key_revoke
from r1platform.models import ApiKey, Project
from r1platform.services import member_set
from serving_app.gateway import limits, views
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, Replica, UsageRecord
from tests.serving_app.conftest import Served, deploy, key_of, until
from tests.serving_app.engine_server import Engine
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client(web: Served, alice: User, deployment: Deployment) -> Any:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key=key_of(alice), max_retries=0) as made:
        yield made


def ask(web: Served, key: str | None, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    authorization = {"Authorization": f"Bearer {key}"} if key is not None else {}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(web.url + path, content=content, headers=authorization | headers, timeout=30)


def chat(said: str, **more: Any) -> dict[str, Any]:
    return {"model": "sums", "messages": [{"role": "user", "content": said}], **more}


def used() -> list[UsageRecord]:
    USAGE.flush()
    return list(UsageRecord.objects.exclude(status=UsageRecord.RUNNING).order_by("id"))


def test_openai_client_chats_unchanged(client: openai.OpenAI, engine: Engine, alice: User) -> None:
    answer = client.chat.completions.create(
        model="sums",
        messages=[{"role": "user", "content": "think carry one | the sum is 42"}],
        temperature=0,
        max_tokens=64,
        user="somebody",
    )
    assert answer.choices[0].message.content == "the sum is 42 "
    assert answer.choices[0].message.reasoning_content == "carry one "  # type: ignore[attr-defined]
    assert answer.usage is not None and answer.usage.completion_tokens == 6
    sent = engine.bodies[-1]
    assert sent["temperature"] == 0 and sent["max_tokens"] == 64 and "user" not in sent and "stream_options" not in sent
    record = used()[-1]
    assert (record.prompt_tokens, record.completion_tokens, record.reasoning_tokens) == (7, 6, 2)
    assert record.user == alice and record.api_key is not None and record.status == 200


def test_openai_client_streams_unchanged(client: openai.OpenAI) -> None:
    pieces, thoughts = [], []
    for chunk in client.chat.completions.create(
        model="sums", messages=[{"role": "user", "content": "think a b | c d e"}], stream=True
    ):
        assert chunk.choices, "the usage event is for those who ask for it"
        pieces.append(chunk.choices[0].delta.content or "")
        thoughts.append(getattr(chunk.choices[0].delta, "reasoning_content", None) or "")
    assert "".join(pieces) == "c d e " and "".join(thoughts) == "a b "
    record = used()[-1]
    assert record.completion_tokens == 5 and record.ttft_seconds is not None and record.ttft_seconds <= record.seconds


def test_usage_event_comes_to_who_asks(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="sums",
            messages=[{"role": "user", "content": "say a"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage is not None and chunks[-1].usage.prompt_tokens == 7 and not chunks[-1].choices


def test_completions_and_models(client: openai.OpenAI, web: Served) -> None:
    assert client.completions.create(model="sums", prompt="say one two").choices[0].text == "one two "
    assert (
        "".join(c.choices[0].text for c in client.completions.create(model="sums", prompt="say x y", stream=True))
        == "x y "
    )
    assert [model.id for model in client.models.list()] == ["sums"]
    assert client.models.retrieve("sums").owned_by == "sums"


def test_prompt_longer_than_the_context_is_the_engines_sentence(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="this model takes 128") as caught:
            client.chat.completions.create(model="sums", messages=[{"role": "user", "content": "long"}], stream=stream)
        assert caught.value.code == "context_length_exceeded"
    assert [record.status for record in used()] == [400, 400]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (chat("x", temprature=1), "temprature", "not known"),
        (chat("x", custom_logit_processor="x"), "custom_logit_processor", "not known"),
        (chat("x", lora_path="/etc"), "lora_path", "not known"),
        (chat("x", temperature=3), "temperature", "less than or equal to 2"),
        (chat("x", temperature="hot"), "temperature", "number"),
        (chat("x", n=0), "n", "greater than"),
        (chat("x", max_tokens=0), "max_tokens", "greater than"),
        ({"model": "sums", "messages": []}, "messages", "at least 1"),
        ({"model": "sums"}, "messages", "missing"),
        ({"model": "sums", "messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "robot"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model", "missing"),
        ([1, 2], None, "object"),
        (b"{", None, "not valid JSON"),
        (b"", None, "not valid JSON"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b"[" * 100_000, None, "not valid JSON"),
        (b'{"model": "sums", "messages": [{"role": "user", "content": "\\ud800"}]}', None, "not valid JSON"),
    ],
)
def test_bad_bodies_are_refused_with_the_parameter(
    web: Served, alice: User, deployment: Deployment, engine: Engine, body: Any, param: str | None, words: str
) -> None:
    answer = ask(web, key_of(alice), body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"] == param and words in error["message"]
    assert engine.bodies == []


def test_content_parts_are_text(web: Served, alice: User, deployment: Deployment, engine: Engine) -> None:
    parts = [{"type": "text", "text": "say "}, {"type": "text", "text": "hi"}]
    body = {
        "model": "sums",
        "messages": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}],
    }
    assert ask(web, key_of(alice), body).status_code == 200
    assert engine.bodies[-1]["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "say hi"},
    ]
    image = {"type": "image_url", "image_url": {"url": "http://x"}}
    assert (
        ask(web, key_of(alice), {"model": "sums", "messages": [{"role": "user", "content": [image]}]}).status_code
        == 400
    )


def test_too_long_body_is_413(web: Served, alice: User, deployment: Deployment) -> None:
    for length in (views.MAX_BYTES + 1, 8 * views.MAX_BYTES):  # the longer one is in no buffer of a socket
        answer = ask(web, key_of(alice), b" " * length)
        assert answer.status_code == 413 and "bytes" in answer.json()["error"]["message"]


def test_keys_without_right_are_refused(
    web: Served, alice: User, bob: User, charlie: User, deployment: Deployment
) -> None:
    body = chat("say hi")
    yesterday = timezone.now() - timedelta(days=1)
    assert ask(web, None, body).status_code == 401
    assert ask(web, "r1_0000_wrong", body).status_code == 401
    assert ask(web, "sk-other", body).status_code == 401
    assert ask(web, key_of(alice, expires_at=yesterday), body).status_code == 401
    assert ask(web, key_of(alice, scopes=("read", "write")), body).status_code == 403
    assert ask(web, key_of(bob), body).status_code == 200, "every member may ask"
    stranger = key_of(charlie)
    answer = ask(web, stranger, body)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    headers = {"Authorization": f"Bearer {stranger}"}
    assert httpx.get(f"{web.url}/v1/models", headers=headers).json()["data"] == []
    assert httpx.get(f"{web.url}/v1/models/sums", headers=headers).status_code == 404


def test_anonymous_gets_401_on_every_path(web: Served, deployment: Deployment) -> None:
    for method, path in [
        ("GET", "models"),
        ("GET", "models/sums"),
        ("POST", "chat/completions"),
        ("POST", "completions"),
    ]:
        answer = httpx.request(method, f"{web.url}/v1/{path}", content=b"{}" if method == "POST" else None)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer", path


def test_sessions_do_not_count(web: Served, client_alice: Any, deployment: Deployment) -> None:
    cookies = {"sessionid": client_alice.cookies["sessionid"].value}
    assert httpx.get(f"{web.url}/v1/models", cookies=cookies).status_code == 401


def test_key_bound_to_another_project_does_not_reach(web: Served, alice: User, deployment: Deployment) -> None:
    from r1platform.services import project_create

    other = project_create(user=alice, name="Other")
    assert ask(web, key_of(alice, project=other), chat("say hi")).status_code == 404
    assert ask(web, key_of(alice, project=deployment.project), chat("say hi")).status_code == 200


def test_revoked_keys_and_memberships_end_within_a_second(
    web: Served, alice: User, bob: User, project: Project, deployment: Deployment
) -> None:
    mine, his = key_of(alice), key_of(bob)
    assert ask(web, mine, chat("say hi")).status_code == ask(web, his, chat("say hi")).status_code == 200
    api_key_revoke(key=ApiKey.objects.get(user=alice), by=alice)
    member_set(project=project, user=bob, role=None, by=alice)
    until(lambda: ask(web, mine, chat("say hi")).status_code == 401, seconds=3)
    until(lambda: ask(web, his, chat("say hi")).status_code == 404, seconds=3)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("starting", "Replica 1 is loading weights.", "loading weights"),
        ("stopped", "", "Start it"),
        ("failed", "Boom.", "Boom"),
    ],
)
def test_model_that_does_not_answer_yet_says_why(
    web: Served, alice: User, project: Project, checkpoint: Checkpoint, state: str, reason: str, words: str
) -> None:
    deploy(project, checkpoint, state=state, state_reason=reason)
    answer = ask(web, key_of(alice), chat("say hi"))
    assert answer.status_code == 503 and words in answer.json()["error"]["message"] and answer.headers["Retry-After"]
    shown = httpx.get(f"{web.url}/v1/models/sums", headers={"Authorization": f"Bearer {key_of(alice)}"}).json()
    assert shown["state"] == state


def test_engine_that_is_gone_is_502_and_another_replica_answers(
    web: Served, alice: User, project: Project, checkpoint: Checkpoint, engine: Engine
) -> None:
    dead = "http://127.0.0.1:9"
    made = deploy(project, checkpoint, urls=(dead, engine.url))  # type: ignore[attr-defined]
    for _ in range(4):
        assert ask(web, key_of(alice), chat("say hi")).status_code == 200
    Replica.objects.filter(base_url=engine.url).update(base_url=dead)  # type: ignore[attr-defined]
    until(lambda: ask(web, key_of(alice), chat("say hi")).status_code == 502, seconds=5)
    made.refresh_from_db()


def test_engine_that_fails_is_502(web: Served, alice: User, deployment: Deployment) -> None:
    answer = ask(web, key_of(alice), chat("fail"))
    assert answer.status_code == 502 and "CUDA error" in answer.json()["error"]["message"]


def test_stream_that_breaks_off_ends_with_an_error_event(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="sums", messages=[{"role": "user", "content": "die a b c"}], stream=True
    )
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)
    record = until(used)[-1]
    assert record.status == 502 and record.completion_tokens > 0


def test_client_that_leaves_stops_the_engine(client: openai.OpenAI, engine: Engine) -> None:
    stream = client.chat.completions.create(
        model="sums", messages=[{"role": "user", "content": "count 10000 0.01"}], stream=True
    )
    for _ in range(5):
        next(stream)
    stream.close()
    until(lambda: engine.aborted == 1 and engine.running == 0, seconds=5)
    record = until(used)[-1]
    assert record.status == views.CLIENT_LEFT and record.completion_tokens >= 3


def test_deployment_deleted_in_use_finishes_what_runs(
    client: openai.OpenAI, alice: User, deployment: Deployment
) -> None:
    from serving_app.services import deployment_delete

    stream = client.chat.completions.create(
        model="sums", messages=[{"role": "user", "content": "count 40 0.02"}], stream=True
    )
    next(stream)
    deployment_delete(deployment=deployment, user=alice)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text.split()[-1] == "39"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sums")
    assert used()[-1].model_name == "sums"


def test_limits_are_429_with_the_time_to_wait(
    web: Served, alice: User, deployment: Deployment, monkeypatch: Any
) -> None:
    monkeypatch.setattr(views, "LIMITS", limits.Limits(requests_per_minute=2, concurrent=10))
    key = key_of(alice)
    assert [ask(web, key, chat("say hi")).status_code for _ in range(3)] == [200, 200, 429]
    answer = ask(web, key, chat("say hi"))
    assert int(answer.headers["Retry-After"]) >= 1 and answer.json()["error"]["type"] == "rate_limit_error"


def test_only_known_paths_reach_the_engine(web: Served, alice: User, deployment: Deployment, engine: Engine) -> None:
    """engine management endpoints and pickle sockets: the gateway forwards an allow-list of paths."""
    key = key_of(alice)
    for path in ("flush_cache", "update_weights_from_disk", "chat/completions/x", "metrics", "abort_request"):
        assert ask(web, key, {}, f"/v1/{path}").status_code == 404
    assert engine.bodies == []


def test_engine_gets_its_own_key_and_never_the_users(web: Served, alice: User, deployment: Deployment) -> None:
    Replica.objects.update(engine_key="another")
    answer = ask(web, key_of(alice), chat("say hi"))
    assert answer.status_code == 502, "the engine refuses a wrong engine key; the user's key is not tried"
