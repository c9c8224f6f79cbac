"""The built-in engine as a process: OpenAI's own client, streams, stops, keys, cancels, and what it refuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from model_core.data.tokenizer import conversation_ids, decode, prompt_ids
from model_core.rollout import Sampler
from model_core.serving.engines import ENGINES
from model_core.serving.reasoning import ReasoningSplitter

KEY = "engine-key"


def serve(name: str, model_dir: Path, log: Path, **config: Any) -> Iterator[str]:
    engine = ENGINES.get(name)()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = engine.command(model_dir=model_dir, port=port, served_name="tiny", api_key=KEY, config=engine.Config.parse(config))
    assert KEY not in command.argv
    with log.open("wb") as output:
        process = subprocess.Popen(command.argv, env={**os.environ, **command.env}, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    deadline, phases = time.monotonic() + 60, []
    try:
        while (readiness := engine.is_ready(url, KEY, "tiny")).phase != "ready":
            phases.append(readiness.phase)
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert phases == sorted(phases, key=["starting", "loading", "warming"].index)
        yield url
    finally:
        process.terminate()
        assert process.wait(10) in {0, -15}


@pytest.fixture(scope="module")
def url(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve("builtin", model_dir, tmp_path_factory.mktemp("log") / "log", max_running_requests=4)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def ask(client: OpenAI, text: str = "17 + 25", **values: Any) -> Any:
    given = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 20, **values}
    return client.chat.completions.create(**given)


def joined(answer: Any) -> str:
    message = answer.choices[0].message
    return (message.reasoning_content or "") + message.content


def test_greedy_answers_are_those_of_the_sampler(client: OpenAI, model_dir: Path) -> None:
    from transformers import AutoTokenizer

    from model_core.model import load_pretrained

    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    sampler = Sampler(load_pretrained(model_dir), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    completion = sampler.generate([prompt_ids(tokenizer, "17 + 25")], max_new_tokens=20, temperature=0)[0][0]
    tokens = [token for token in completion.tokens if token != tokenizer.eos_token_id]
    text = "".join(ReasoningSplitter().feed(decode(tokenizer, tokens), last=True))
    answer = ask(client)
    assert joined(answer) == text
    assert answer.usage.completion_tokens == len(completion.tokens)
    assert answer.choices[0].finish_reason == completion.finish_reason


def test_eight_at_once_are_as_one_by_one(client: OpenAI) -> None:
    texts = [f"{number} + {number * 3}" for number in range(8)]
    alone = [joined(ask(client, text)) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: joined(ask(client, text)), texts))
    assert together == alone


def test_a_stream_is_the_answer_in_pieces(client: OpenAI) -> None:
    whole = ask(client)
    said, usage, finish = "", None, None
    for event in ask(client, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            delta = choice.delta
            said += (delta.content or "") + (getattr(delta, "reasoning_content", None) or "")
            finish = choice.finish_reason or finish
    assert said == joined(whole) and finish == whole.choices[0].finish_reason
    assert usage is not None and usage.completion_tokens == whole.usage.completion_tokens


def test_a_stop_text_ends_the_answer_before_it(client: OpenAI) -> None:
    text = client.completions.create(model="tiny", prompt="17", temperature=0, max_tokens=30).choices[0].text
    stop = text[5:7]
    cut = client.completions.create(model="tiny", prompt="17", temperature=0, max_tokens=30, stop=stop).choices[0]
    assert cut.text == text[: text.index(stop)] and cut.finish_reason == "stop"
    pieces = client.completions.create(model="tiny", prompt="17", temperature=0, max_tokens=30, stop=stop, stream=True)
    assert "".join(event.choices[0].text for event in pieces if event.choices) == cut.text


def test_logprobs_of_a_chat_are_those_of_the_model(client: OpenAI, model_dir: Path) -> None:
    whole = ask(client, logprobs=True, top_logprobs=3, max_tokens=6)
    tokens = whole.choices[0].logprobs.content
    assert len(tokens) == 6 and "".join(t.token for t in tokens).replace("<|unk|>", "") == joined(whole)
    for token in tokens:
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        assert token.logprob <= 0 and token.top_logprobs[0].token == token.token, "greedy takes the likeliest"
        assert abs(token.top_logprobs[0].logprob - token.logprob) < 1e-4
    events = list(ask(client, logprobs=True, top_logprobs=3, max_tokens=6, stream=True))
    streamed = [t for e in events for c in e.choices if c.logprobs for t in c.logprobs.content]
    assert [(t.token, t.logprob) for t in streamed] == [(t.token, t.logprob) for t in tokens]
    assert ask(client).choices[0].logprobs is None


def test_logprobs_of_a_text_have_the_shape_of_completions(client: OpenAI) -> None:
    given = {"model": "tiny", "prompt": "17", "temperature": 0, "max_tokens": 5, "logprobs": 2}
    choice = client.completions.create(**given).choices[0]
    found = choice.logprobs
    assert choice.text and len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == 5
    assert found.text_offset == [sum(map(len, found.tokens[:n])) for n in range(5)]
    assert all(1 <= len(top) <= 2 and token in top for token, top in zip(found.tokens, found.top_logprobs, strict=True))
    pieces = [c.logprobs for e in client.completions.create(**given, stream=True) for c in e.choices if c.logprobs]
    assert [t for piece in pieces for t in piece.tokens] == found.tokens
    assert [o for piece in pieces for o in piece.text_offset] == found.text_offset


def test_cuts_leave_what_they_say(client: OpenAI) -> None:
    greedy = joined(ask(client))
    for cut in ({"top_k": 1}, {"min_p": 1.0}):
        assert joined(ask(client, temperature=1.5, seed=3, extra_body=cut)) == greedy
    assert joined(ask(client, temperature=1e-6)) == greedy
    assert joined(ask(client, temperature=1.5, seed=3, extra_body={"top_k": -1, "min_p": 0.0})) != greedy


@pytest.mark.parametrize(
    ("name", "value", "neutral"),
    [("presence_penalty", 0.5, 0), ("frequency_penalty", -1, 0.0), ("repetition_penalty", 1.1, 1.0), ("echo", True, False),
     ("logit_bias", {"5": 1}, {}), ("best_of", 2, 1)],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_name(client: OpenAI, name: str, value: Any, neutral: Any) -> None:
    with pytest.raises(BadRequestError, match=f"no “{name}”") as caught:
        ask(client, extra_body={name: value})
    assert caught.value.param == name
    assert ask(client, extra_body={name: neutral}).usage.completion_tokens > 0


def test_what_openais_client_sends_of_itself_changes_no_answer(client: OpenAI) -> None:
    """Its settings that are about storing and speed, content in parts, and an answer that is sent back as it came."""
    harmless: dict[str, Any] = {
        "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "safety_identifier": "me", "prompt_cache_key": "me",
        "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "4"}, "parallel_tool_calls": False,
        "modalities": ["text"], "verbosity": "medium", "reasoning_effort": "medium", "tools": [], "tool_choice": "auto",
        "response_format": {"type": "text"}, "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0,
    }  # fmt: skip
    plain = ask(client)
    assert joined(ask(client, **harmless)) == joined(plain)
    events = ask(client, **harmless, stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert "".join((choice.delta.content or "") + (getattr(choice.delta, "reasoning_content", None) or "")
                   for event in events for choice in event.choices) == joined(plain)  # fmt: skip
    parts = [{"role": "user", "content": [{"type": "text", "text": "17 "}, {"type": "text", "text": "+ 25"}]}]
    assert joined(ask(client, messages=parts)) == joined(plain)
    told = [{"role": role, "content": "Be brief."} for role in ("system", "developer")]
    assert len({joined(ask(client, messages=[one, *parts])) for one in told}) == 1
    assert ask(client, messages=[*parts, plain.choices[0].message, *parts]).usage.prompt_tokens > plain.usage.prompt_tokens


@pytest.mark.parametrize(("values", "param"), [
    ({"extra_body": {"ignore_eos": True}}, "ignore_eos"), ({"extra_body": {"temprature": 1}}, "temprature"),
    ({"stop": [str(number) for number in range(17)]}, "stop"), ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": "1"}, {"role": "tool", "content": "2", "tool_call_id": "x"}]}, "messages.1.tool_call_id"),
    ({"messages": []}, "messages"),
])  # fmt: skip
def test_what_would_change_the_answer_is_not_passed_over(client: OpenAI, values: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        with pytest.raises(BadRequestError) as caught:
            ask(client, **values, stream=stream)
        assert caught.value.param == param and param in caught.value.message


def test_counts_so_far_come_with_every_event(client: OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [event.usage for event in ask(client, stream=True, stream_options=options)]
    assert None not in counts
    numbers = [usage.completion_tokens for usage in counts]
    assert numbers == sorted(numbers) and set(numbers) >= set(range(1, numbers[-1] + 1))


def test_n_with_a_seed(client: OpenAI) -> None:
    first = ask(client, n=3, temperature=1.0, seed=4)
    again = ask(client, n=3, temperature=1.0, seed=4)
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices] and len(set(texts)) > 1


def test_what_cannot_be_answered_is_refused_with_a_sentence(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="context of 128"):
        ask(client, "word " * 200)
    with pytest.raises(BadRequestError, match="context of 128"):
        ask(client, "word " * 200, stream=True)
    with pytest.raises(BadRequestError, match=r"prompt has \d+ tokens, too many .* context of 128") as caught:
        ask(client, "word " * 200)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError, match=r"max_tokens is 127") as caught:
        ask(client, max_tokens=127)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError, match="n=1") as caught:
        ask(client, n=2, stream=True)
    assert caught.value.param == "n"
    with pytest.raises(BadRequestError, match="max_tokens"):
        ask(client, max_tokens=0)
    with pytest.raises(NotFoundError, match="this serves “tiny”"):
        ask(client, model="other")
    with pytest.raises(BadRequestError, match="role “robot”"):
        ask(client, messages=[{"role": "robot", "content": "x"}])


def test_the_key_is_asked_for(url: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "1"}]}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code == 401
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401
    assert httpx.get(f"{url}/health").json()["phase"] == "ready"


def test_a_reader_who_goes_away_ends_the_request(url: str, client: OpenAI) -> None:
    stream = ask(client, stream=True, max_tokens=100)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 10
    engine = ENGINES.get("builtin")()
    while engine.read_metrics(url)["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    metrics = engine.read_metrics(url)
    assert metrics["ttft_seconds"] > 0 and metrics["inter_token_seconds"] > 0


def test_conversations_lose_earlier_reasoning(model_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "<think>easy</think>2"}, {"role": "user", "content": "2+2"},
    ]  # fmt: skip
    ours = conversation_ids(tokenizer, messages)
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert ours == tokenizer(theirs, add_special_tokens=False)["input_ids"]


def test_the_echo_speaks_the_same_protocol(tmp_path: Path) -> None:
    for url in serve("fake", tmp_path, tmp_path / "log", pause=0.0):
        with OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            answer = ask(client, "say it again", max_tokens=50)
        message = answer.choices[0].message
        assert (message.reasoning_content, message.content) == ("I repeat.", "say it again")
        assert json.loads(answer.model_dump_json())["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
