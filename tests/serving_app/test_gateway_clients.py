"""Clients that nobody here wrote: LangChain's ChatOpenAI, and what openai's own makes of errors, models and probabilities."""

from __future__ import annotations

import importlib
from typing import Any

import openai
import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User

from serving_app.models import Deployment
from tests.serving_app.conftest import Served, deploy, key_of
from tests.serving_app.engine_server import Engine
from tests.serving_app.test_gateway import chat, used
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db(transaction=True)


def langchain(web: Served, key: str, **options: Any) -> Any:
    module = importlib.import_module("langchain_openai")
    return module.ChatOpenAI(base_url=f"{web.url}/v1", api_key=key, model="sums", max_retries=0, **options)


async def test_langchain_invokes_streams_and_batches_unchanged(web: Served, alice: User, deployment: Deployment) -> None:
    key = await database_sync_to_async(key_of)(alice)
    async with openai.DefaultAsyncHttpxClient() as http:
        model = langchain(web, key, temperature=0.5, max_tokens=50, http_async_client=http)
        answer = await model.ainvoke([("system", "Be brief."), ("human", "say one two")])
        assert answer.content == "one two " and answer.usage_metadata["output_tokens"] == 2
        assert answer.response_metadata["finish_reason"] == "stop" and answer.response_metadata["model_name"] == "sums"
        chunks = [chunk async for chunk in model.astream("say a b c", stream_usage=True)]
        assert "".join(chunk.content for chunk in chunks) == "a b c "
        assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 3
        batch = await model.abatch([f"say {number}" for number in range(20)])
        assert [one.content for one in batch] == [f"{number} " for number in range(20)]
    rows = await database_sync_to_async(used)()
    assert len(rows) == 22 and {row.status for row in rows} == {200} and sum(row.completion_tokens for row in rows) == 2 + 3 + 20


@pytest.fixture
def client(web: Served, alice: User, deployment: Deployment) -> Any:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key=key_of(alice), max_retries=0) as made:
        yield made


def test_openai_client_reads_probabilities(client: openai.OpenAI, engine: Engine) -> None:
    stream = client.chat.completions.create(**chat("say a b"), stream=True, logprobs=True, top_logprobs=2)
    tokens = [token for chunk in stream for choice in chunk.choices if choice.logprobs for token in choice.logprobs.content or []]
    assert [token.token for token in tokens] == ["a ", "b "] and engine.bodies[-1]["top_logprobs"] == 2
    assert [other.token for other in tokens[0].top_logprobs] == ["a ", "else "] and tokens[0].logprob == -0.1


def test_every_answer_has_an_id_and_its_row_of_usage_has_the_same(client: openai.OpenAI, engine: Engine) -> None:
    answer = client.chat.completions.create(**chat("say hi"))
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(**{**chat("say hi"), "model": "none"})
    assert [str(row.request_id) for row in used()] == [answer._request_id]
    assert refused.value.request_id not in {None, answer._request_id}


def test_openai_client_raises_its_own_class_for_each_error(
    web: Served, client: openai.OpenAI, alice: User, checkpoint: Checkpoint
) -> None:
    deploy(checkpoint.run.project, checkpoint, name="idle", state="stopped")

    def refused(key: str, said: str = "say hi", **more: Any) -> openai.APIStatusError:
        with openai.OpenAI(base_url=f"{web.url}/v1", api_key=key, max_retries=0) as asking, pytest.raises(openai.APIStatusError) as caught:
            asking.chat.completions.create(**{**chat(said), **more})
        return caught.value

    key = client.api_key
    assert type(refused("r1_wrong")) is openai.AuthenticationError
    assert type(refused(key_of(alice, scopes=("read",)))) is openai.PermissionDeniedError
    assert type(refused(key, model="none")) is openai.NotFoundError and refused(key, model="none").code == "model_not_found"
    assert type(refused(key, temperature=9)) is openai.BadRequestError and refused(key, temperature=9).param == "temperature"
    assert type(refused(key, model="idle")) is openai.InternalServerError and refused(key, model="idle").status_code == 503
    limited = key_of(alice, requests_per_minute=1)
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key=limited, max_retries=0) as asking:
        asking.chat.completions.create(**chat("say hi"))
    found = refused(limited)
    assert type(found) is openai.RateLimitError and found.code == "rate_limit_exceeded"
    assert 0 < int(found.response.headers["retry-after"]) <= 60
