"""The server over an echo, in this process: a stream is the answer, errors have OpenAI's form, and nobody is left running."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.serving.backend import FakeBackend, Piece, Sampling
from model_core.serving.server import CLIENT_LEFT, app
from tests.model_core.serving.asked import Breaking, added_up, call, chat, complete, events

ALL: dict[str, Any] = {"include_usage": True, "continuous_usage_stats": True}
SAID = st.text(st.sampled_from("ab ü😀<>\n"), max_size=12)


@given(SAID, st.integers(1, 8) | st.none(), st.sampled_from([None, "a", ["b", " a"], "</think>", "repeat"]))
@settings(max_examples=60, deadline=None)
def test_a_stream_adds_up_to_the_answer(said: str, limit: int | None, stop: Any) -> None:
    """Of a chat and of a text, with limits and stop texts, in the thinking too."""
    backend, options = FakeBackend(), {"max_tokens": limit, "stop": stop}
    whole, pieces = chat(backend, said, **options).json(), events(chat(backend, said, **options, stream=True, stream_options=ALL))
    told, message = added_up(pieces), whole["choices"][0]["message"]
    assert (told["content"], told["reasoning_content"] or None) == (message["content"], message["reasoning_content"])
    assert told["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert pieces[-1] == "[DONE]" and pieces[-2]["usage"] == whole["usage"]
    text = complete(backend, said, **options).json()
    told = added_up(events(complete(backend, said, **options, stream=True)))
    assert {name: told[name] for name in ("text", "finish_reason")} == {
        name: text["choices"][0][name] for name in ("text", "finish_reason")}
    assert backend.running == 0


def test_a_text_keeps_its_thinking_and_a_chat_takes_it_apart() -> None:
    assert complete(FakeBackend(), "2+2").json()["choices"][0]["text"] == "<think>I repeat.</think>2+2"
    message = chat(FakeBackend(), "2+2").json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "2+2", "reasoning_content": "I repeat."}


class Plain(FakeBackend):
    """An echo that does not think."""

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        words = "".join(map(chr, prompt)).split(" ")
        for number, word in enumerate(words, start=1):
            yield Piece(f"{word} ", number, "stop" if number == len(words) else None)


def test_an_answer_without_thinking_streams_word_by_word() -> None:
    """Each word is told with its token, as the counts say; only what may still become a mark is waited for."""
    said = "one </think two < three"
    chunks = events(chat(Plain(), said, stream=True, stream_options=ALL))[1:-3]
    told = [(chunk["choices"][0]["delta"].get("content", ""), chunk["usage"]["completion_tokens"]) for chunk in chunks]
    assert told == [(f"{word} ", number) for number, word in enumerate(said.split(" "), start=1)]
    late = events(chat(Plain(), "<thi nk", stream=True, stream_options=ALL))[1:-3]
    assert [chunk["choices"][0]["delta"] for chunk in late] == [{"content": "<thi "}, {"content": "nk "}]


def test_the_events_of_a_stream_have_one_head_and_one_end() -> None:
    for answer, kind, prefix in ((chat, "chat.completion", "chatcmpl-"), (complete, "text_completion", "cmpl-")):
        whole = answer(FakeBackend(), "a b").json()
        *chunks, end = events(answer(FakeBackend(), "a b", stream=True))
        assert whole["object"] == kind and whole["id"].startswith(prefix) and end == "[DONE]"
        assert {(c["object"], c["model"]) for c in chunks} == {(kind + (".chunk" if answer is chat else ""), "tiny")}
        assert len({(c["id"], c["created"]) for c in chunks}) == 1
        assert [bool(c["choices"][0]["finish_reason"]) for c in chunks] == [False] * (len(chunks) - 1) + [True]
        assert not any("usage" in c for c in chunks), "nobody asked for it"
    (first, *_) = events(chat(FakeBackend(), "a", stream=True))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_the_usage_of_a_stream_comes_once_and_last_unless_asked_for_all_along() -> None:
    once = events(chat(FakeBackend(), "a b", stream=True, stream_options={"include_usage": True}))[:-1]
    assert ["usage" in chunk for chunk in once] == [False] * (len(once) - 1) + [True] and once[-1]["choices"] == []
    along = events(chat(FakeBackend(), "a b", stream=True, stream_options={"continuous_usage_stats": True}))[:-1]
    counts = [chunk["usage"]["completion_tokens"] for chunk in along]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == once[-1]["usage"]["completion_tokens"]
    assert all(chunk["choices"] for chunk in along)


@given(st.integers(1, 5), SAID)
@settings(max_examples=20, deadline=None)
def test_n_completions_are_n_choices_and_their_tokens_are_added(n: int, said: str) -> None:
    one, several = (chat(FakeBackend(), said, n=number).json() for number in (1, n))
    assert [choice["index"] for choice in several["choices"]] == list(range(n))
    assert all({**choice, "index": 0} == one["choices"][0] for choice in several["choices"])
    assert several["usage"]["completion_tokens"] == n * one["usage"]["completion_tokens"]
    assert several["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"] == len(said)
    assert several["usage"]["total_tokens"] == several["usage"]["prompt_tokens"] + several["usage"]["completion_tokens"]


@given(st.integers(0, 20), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_a_context_is_full_and_no_fuller(length: int, limit: int) -> None:
    answer = chat(FakeBackend(context=12), "x" * length, max_tokens=limit)
    assert (answer.status_code == 200) == (length < 12 and length + limit <= 12)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
        assert error["param"] == ("messages" if length >= 12 else "max_tokens") and str(length) in error["message"]


@pytest.mark.parametrize("num_pieces", [0, 1, 5])
def test_an_engine_that_breaks_says_so_wherever_the_answer_is(num_pieces: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first piece as a status, in the middle of a stream as its last event, which is no end."""
    backend = Breaking(num_pieces)
    whole = chat(backend, "a b c", n=3)
    assert whole.status_code == 503 and whole.json()["error"]["code"] == "engine_unavailable" and whole.headers["retry-after"]
    streamed = chat(backend, "a b c", stream=True)
    error = streamed.json() if num_pieces == 0 else events(streamed)[-1]
    assert error == whole.json() and error["error"]["type"] == "server_error"
    assert streamed.status_code == (503 if num_pieces == 0 else 200) and "[DONE]" not in streamed.text
    if num_pieces:
        assert added_up(events(streamed)[:-1])["finish_reason"] is None
    assert backend.running == 0, "the other completions of the request are ended too"
    assert capsys.readouterr().err.count("A request failed with 503: The engine has failed") == 2


@pytest.mark.parametrize(("phase", "status"), [("loading", 503), ("ready", 200), ("failed", 500)])
def test_health_says_the_phase_and_only_a_ready_engine_answers(phase: str, status: int) -> None:
    backend = FakeBackend()
    backend.phase, backend.detail = phase, "Somewhere on the way."
    health = call(backend, "GET", "/health")
    assert health.status_code == status and health.json() == {"phase": phase, "detail": "Somewhere on the way."}
    assert call(backend, "GET", "/v1/models").json()["data"][0]["id"] == "tiny"
    answer = chat(backend, "a")
    assert answer.status_code == (200 if phase == "ready" else 503)
    if phase != "ready":
        assert "Somewhere on the way." in answer.json()["error"]["message"] and answer.headers["retry-after"]


@pytest.mark.parametrize(("key", "bearer", "status"), [
    ("", None, 200), ("", "Bearer anything", 200), ("k", "Bearer k", 200), ("k", None, 401), ("k", "Bearer ", 401),
    ("k", "Bearer K", 401), ("k", "Bearer kk", 401), ("schlüssel", "Bearer schl", 401), ("k", b"Bearer \xff\xfc", 401),
])  # fmt: skip
def test_a_key_is_asked_for_where_there_is_one(key: str, bearer: Any, status: int) -> None:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    for method, path, given_body in (("GET", "/v1/models", None), ("POST", "/v1/completions", body)):
        answer = call(FakeBackend(), method, path, key=key, bearer=bearer, json=given_body)
        assert answer.status_code == status
        assert status == 200 or answer.json()["error"]["type"] == "authentication_error"
    for path in ("/health", "/metrics"):
        assert call(FakeBackend(), "GET", path, key=key, bearer=bearer).status_code == 200, "asked by who has no key"


def test_there_is_nothing_else() -> None:
    assert call(FakeBackend(), "GET", "/v1/embeddings").status_code == 404
    assert call(FakeBackend(), "GET", "/v1/completions").status_code == 405
    assert call(FakeBackend(), "POST", "/health").status_code == 405


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reader_who_leaves_ends_every_completion(stream: bool) -> None:
    """Before the first piece of a stream, and of an answer with three completions."""
    backend = FakeBackend(pause=30)
    n = 1 if stream else 3
    body = {"model": "tiny", "prompt": "a", "stream": stream, "n": n}
    asked, gone, sent = asyncio.Event(), asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        if not asked.is_set():
            asked.set()
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": []}
    request = asyncio.create_task(app(backend, served_name="tiny", api_key="", watch=lambda _backend: None)(scope, receive, send))
    async with asyncio.timeout(10):
        while backend.running < n:
            await asyncio.sleep(0)
        gone.set()
        await request
    assert backend.running == 0 and sent[0]["status"] == CLIENT_LEFT
