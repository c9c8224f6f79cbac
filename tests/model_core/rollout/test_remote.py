"""An engine that samples for a trainer, in every mood: full, slow, broken, of other weights, and one that lies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse, Response

from model_core.errors import ConfigError, EngineError
from model_core.rollout import remote
from model_core.rollout.remote import ENGINES, RemoteEngine, key_of
from tests.model_core.rollout.engines import KEY, Told, listening

PROMPTS = [[1, 2], [3], [4, 5, 6]]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(remote, "MAX_PAUSE_SECONDS", 0.02)


@contextmanager
def engine_of(told: Told, **values: Any) -> Iterator[RemoteEngine]:
    with listening(told.application()) as url:
        made = RemoteEngine(url, KEY, **values)
        made.version = told.version
        yield made


def ask(engine: RemoteEngine, **values: Any) -> list[list[Any]]:
    return engine.generate(PROMPTS, **{"num_samples": 2, "max_new_tokens": 4, "seed": 7, **values})


def reasons(groups: list[list[Any]]) -> list[list[str]]:
    return [[one.finish_reason for one in group] for group in groups]


def test_groups_come_in_the_order_of_their_prompts_with_a_seed_for_each_completion() -> None:
    asked: list[Any] = []

    async def answer(body: dict[str, Any]) -> Any:
        asked.append(body)
        await asyncio.sleep(0.05 if body["input_ids"][0] == PROMPTS[0] else 0)
        items = told.said(body)
        for item in items:
            item["meta_info"]["output_token_logprobs"] = [[-0.25, token, None] for token in body["input_ids"][0]]
        return items

    told: Told = Told(answer)
    with engine_of(told) as engine:
        groups = ask(engine, temperature=0.5, top_p=0.9)
        assert engine.generate([], max_new_tokens=4) == [] and len(asked) == 3
    assert [[one.tokens for one in group] for group in groups] == [[prompt] * 2 for prompt in PROMPTS]
    assert groups[0][0].logprobs == [-0.25, -0.25] and groups[0][0].finish_reason == "stop"
    params = [one for body in asked for one in body["sampling_params"]]
    assert len({one["sampling_seed"] for one in params}) == 6 and all(0 <= one["sampling_seed"] < 2**31 for one in params)
    assert {(one["temperature"], one["top_p"], one["max_new_tokens"]) for one in params} == {(0.5, 0.9, 4)}
    assert len({rid for body in asked for rid in body["rid"]}) == 6 and not told.aborted


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_never_began_is_asked_again(status: int) -> None:
    told: Told = Told(lambda body: Response(status_code=status) if told.num_asked <= 4 else told.said(body))
    with engine_of(told, num_requests=1) as engine:
        assert reasons(ask(engine)) == [["stop"] * 2] * 3
    assert told.num_asked == 3 + 4 and not told.aborted


def test_nobody_who_listens_is_waited_for_a_while_and_then_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        engine = RemoteEngine(f"http://127.0.0.1:{probe.getsockname()[1]}", KEY)
    with pytest.raises(EngineError, match="none of 6 completions was finished; the last one: nobody answers"):
        ask(engine)
    with pytest.raises(ConfigError, match="does not answer") as caught:
        engine.check()
    assert caught.value.field == "phase_config.rollout_url"


def test_what_may_have_begun_is_aborted_and_not_asked_again() -> None:
    async def answer(body: dict[str, Any]) -> Any:
        if body["input_ids"][0] == PROMPTS[1]:
            for _ in range(500):
                if len(told.aborted) == 2:
                    break
                await asyncio.sleep(0.01)
        return told.said(body) if body["input_ids"][0] != PROMPTS[2] else Response(status_code=500)

    told: Told = Told(answer)
    with engine_of(told, seconds=0.3) as engine:
        groups = ask(engine)
    assert reasons(groups) == [["stop"] * 2, ["abort"] * 2, ["abort"] * 2] and told.num_asked == 3
    assert groups[1][0].tokens == [] == groups[2][1].logprobs
    assert len(set(told.aborted)) == 2, "the engine is told that nobody waits"


def test_no_more_requests_than_may_run_at_a_time() -> None:
    running, most = [0], [0]

    async def answer(body: dict[str, Any]) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.02)
        running[0] -= 1
        return told.said(body)

    told: Told = Told(answer)
    with engine_of(told, num_requests=2) as engine:
        engine.generate([[1]] * 9, max_new_tokens=1)
    assert most[0] == 2


def changed(body: dict[str, Any], told: Told, **meta: Any) -> list[Any]:
    items = told.said(body)
    items[0]["meta_info"] |= meta
    return items


@pytest.mark.parametrize(("answer", "why"), [
    (lambda body, told: changed(body, told, weight_version="another"), "of the weights “another”"),
    (lambda body, told: changed(body, told, output_token_logprobs=[]), "0 tokens that ended by “stop”"),
    (lambda body, told: changed(body, told, output_token_logprobs=[[None, 1, None]]), "no completion with log-prob"),
    (lambda body, told: changed(body, told, output_token_logprobs=None), "no completion with log-prob"),
    (lambda body, told: Response(b'[{"meta_info": {"output_token_logprobs": [[NaN, 1, null]], "finish_reason": {"type": "stop"},'
                                 b'"weight_version": "default"}}, {}]'), "not finite"),
    (lambda body, told: changed(body, told, finish_reason={"type": "tool"}), "ended by “tool”"),
    (lambda body, told: changed(body, told, finish_reason=None), "no completion with log-prob"),
    (lambda body, told: told.said(body)[:1], "1 completions for 2"),
    (lambda body, told: Response(b"<html>"), "0 completions for 2"),
    (lambda body, told: JSONResponse({"error": {"message": "No such token."}}, status_code=400), "400: No such token"),
    (lambda body, told: Response(status_code=401), "401: Unauthorized"),
    (lambda body, told: told.said(body, finish="abort"), "none of 6 completions was finished; the last one: the engine aborted"),
])  # fmt: skip
def test_an_engine_that_answers_otherwise_is_no_source_of_rollouts(answer: Any, why: str) -> None:
    told: Told = Told(lambda body: answer(body, told))
    with engine_of(told) as engine, pytest.raises(EngineError, match=why):
        ask(engine)


def test_an_update_that_is_refused_leaves_the_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    told: Told = Told(lambda body: told.said(body))
    with engine_of(told) as engine:
        assert engine.update(tmp_path, "sha256:1") is None and engine.version == told.version == "sha256:1"
        assert engine.checksum() is None, "it has none"
        monkeypatch.setattr(remote.httpx.Response, "json", lambda _self: {"success": False, "message": "No such file."})
        with pytest.raises(EngineError, match="No such file"):
            engine.update(tmp_path, "sha256:2")
        assert engine.version == "sha256:1"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"http://[a-z]{1,4}:[0-9]{1,3}", fullmatch=True), st.from_regex(r"[a-z=]{0,6}", fullmatch=True)),
                unique_by=lambda pair: pair[0], max_size=3))
def test_a_key_goes_to_its_own_engine_only(named: list[tuple[str, str]]) -> None:
    environment = {ENGINES: "  ".join(f"{url}={key}" for url, key in named)}
    for url, key in named:
        assert key_of(url, environment) == key
    with pytest.raises(ConfigError, match=ENGINES):
        key_of("http://elsewhere:1", environment)
