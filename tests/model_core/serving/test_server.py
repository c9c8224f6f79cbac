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
import torch
from openai import BadRequestError, NotFoundError, OpenAI

from model_core.config import ModelConfig, TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import conversation_ids, decode, prompt_ids, train_tokenizer
from model_core.model import Transformer, save_pretrained
from model_core.rollout import Sampler
from model_core.serving.engines import ENGINES

KEY = "engine-key"
TEXT = "What is 17 + 25? <think>7+5=12 carry 1; 1+2+1=4</think>42"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a tokenizer."""
    torch.manual_seed(0)
    rows = [Row(prompt=TEXT, completion=TEXT, answer="42", task="", meta={})]
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), rows)
    config = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 128}
    model = Transformer(ModelConfig.parse(config))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
    directory = tmp_path_factory.mktemp("model")
    save_pretrained(model, directory, tokenizer)
    return directory


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
    text = decode(tokenizer, tokens).replace("<think>", "").replace("</think>", "")
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
