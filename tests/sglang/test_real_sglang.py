"""The real SGLang on this machine: it serves our export, answers as the built-in engine does, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from openai import AuthenticationError, OpenAI

from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import prompt_ids, train_tokenizer
from model_core.errors import EngineError
from model_core.model import Transformer, load_pretrained, save_pretrained
from model_core.rollout.remote import RemoteEngine
from model_core.rollout.remote_weights import WeightSync
from model_core.serving.engines import ENGINES
from model_core.serving.load import Level, Target, run_level, stream_body
from model_core.training.start import load_tokenizer
from r1platform.lib.processes import child_environment, group_pids, is_alive, spawn, stop_group
from tests.sglang.same_tokens import KEY, from_transformers, say_the_same

MISSING = ENGINES.get("sglang")().installed()
pytestmark = [
    pytest.mark.sglang, pytest.mark.timeout(240), pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]  # fmt: skip
NAME = "tiny"
TEXT = "What is 17 + 25? <think>7+5=12 carry 1; 1+2+1=4</think>42"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a V3 directory can say. Some of its answers begin with thinking and end it, some never end it, some have none."""
    directory = tmp_path_factory.mktemp("model")
    rows = [Row(prompt=TEXT, completion=TEXT, answer="42", task="", meta={})]
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), rows)
    model = from_transformers("v3", directory, len(tokenizer))
    torch.manual_seed(14)
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("</think>")] *= 2
        torch.manual_seed(114)
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("<think>")].normal_(0, 3)
    save_pretrained(model, directory / "ours", tokenizer)
    return directory / "ours"


def serve(name: str, model_dir: Path, directory: Path, seconds: float) -> Iterator[str]:
    engine = ENGINES.get(name)()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = engine.Config()
    command = engine.command(model_dir=model_dir, port=port, served_name=NAME, api_key=KEY, config=config)
    assert KEY not in " ".join(command.argv)
    env = child_environment(os.environ, mark=directory) | command.env
    ref = spawn(command.argv, cwd=directory, env=env, log=directory / f"{name}.log")
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    try:
        while engine.is_ready(url, KEY, NAME).phase != "ready":
            log = (directory / f"{name}.log").read_text()[-3000:]
            assert is_alive(ref) and time.monotonic() < deadline, log
            time.sleep(0.2)
        yield url
    finally:
        assert stop_group(ref, grace_seconds=engine.stop_grace_seconds)
        assert not group_pids(ref)


@pytest.fixture(scope="module")
def sglang(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve("sglang", model_dir, tmp_path_factory.mktemp("sglang"), 150)


@pytest.fixture(scope="module")
def builtin(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve("builtin", model_dir, tmp_path_factory.mktemp("builtin"), 60)


def ask(url: str, text: str, **values: Any) -> Any:
    given = {"model": NAME, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24, **values}
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        found = client.chat.completions.create(**given)
        return list(found) if values.get("stream") else found


def said(answer: Any) -> tuple[str, str]:
    """What was thought and what was said."""
    message = answer.choices[0].message
    return (getattr(message, "reasoning_content", None) or "").strip(), (message.content or "").strip()


def said_in(delta: Any) -> str:
    return (getattr(delta, "reasoning_content", None) or "") + (delta.content or "")


def streamed(url: str, text: str) -> tuple[str, str]:
    parts = {"reasoning_content": "", "content": ""}
    for event in ask(url, text, stream=True):
        for choice in event.choices:
            for name in parts:
                parts[name] += getattr(choice.delta, name, None) or ""
    return parts["reasoning_content"].strip(), parts["content"].strip()


def test_both_engines_give_the_same_greedy_answers(sglang: str, builtin: str) -> None:
    texts = [f"{number} + {number * 7} = ?" for number in range(8)]
    ours, theirs = ([ask(url, text) for text in texts] for url in (builtin, sglang))
    assert [a.usage.completion_tokens for a in ours] == [a.usage.completion_tokens for a in theirs]
    assert [a.usage.prompt_tokens for a in ours] == [a.usage.prompt_tokens for a in theirs]
    assert [said(a) for a in ours] == [said(a) for a in theirs]
    assert [streamed(sglang, text) for text in texts] == [said(a) for a in theirs]
    parts = {(bool(thought), bool(answer)) for thought, answer in map(said, theirs)}
    assert parts == {(True, True), (True, False), (False, True)}, "what begins with <think> was thought up to </think>"
    plain = next(text for text, answer in zip(texts, theirs, strict=True) if not said(answer)[0])
    for url in (builtin, sglang):
        told = [event for event in ask(url, plain, stream=True) if event.choices and said_in(event.choices[0].delta)]
        assert len(told) > 5, "an answer without thinking is not held until its end"


def test_transformers_and_our_sampler_say_the_same_tokens(sglang: str, model_dir: Path) -> None:
    say_the_same(sglang, load_pretrained(model_dir), model_dir)


def test_it_streams_and_counts(sglang: str) -> None:
    with OpenAI(base_url=f"{sglang}/v1", api_key=KEY) as client:
        events = list(
            client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "1"}], temperature=0, max_tokens=8, stream=True,
                stream_options={"include_usage": True},
            )
        )  # fmt: skip
    assert sum(event.usage.completion_tokens for event in events if event.usage) == 8
    options = {"include_usage": True, "continuous_usage_stats": True}
    so_far = ask(sglang, "1", max_tokens=8, stream=True, stream_options=options)
    texts = [event for event in so_far if event.choices and said_in(event.choices[0].delta)]
    assert so_far[-1].usage.completion_tokens == 8 and texts and all(event.usage.prompt_tokens for event in texts)
    metrics = ENGINES.get("sglang")().read_metrics(sglang)
    assert metrics["running"] == 0 and metrics["ttft_seconds"] > 0


def test_a_benchmark_loads_it_and_answers_go_past_their_end(sglang: str, model_dir: Path) -> None:
    """Nine tokens each, though every one of them is the end."""
    end = {str(load_tokenizer(model_dir).eos_token_id): 100.0}
    assert ask(sglang, "1 + 7 = ?", max_tokens=9, logit_bias=end).usage.completion_tokens == 1
    level, settings = Level(2, 6), {"max_tokens": 9, "temperature": 0.0, "logit_bias": end, "ignore_eos": True}
    body = [stream_body(NAME, f"{number} + 7 = ?", **settings) for number in range(6)]
    asyncio.run(run_level(level, [Target(sglang, KEY)], lambda number: body[number], seconds=60))
    assert [one.error for one in level.asked] == [""] * 6 and not level.is_cut
    assert [one.completion_tokens for one in level.asked] == [9] * 6
    assert all(one.seconds and one.prompt_tokens > 5 for one in level.asked)


def test_it_asks_for_the_key(sglang: str) -> None:
    with OpenAI(base_url=f"{sglang}/v1", api_key="wrong") as client, pytest.raises(AuthenticationError):
        client.models.list()
    assert httpx.get(f"{sglang}/v1/models").status_code == 401


def logprobs_of(policy: Transformer, prompt: list[int], tokens: list[int], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        logits_TV = policy(torch.tensor([[*prompt, *tokens[:-1]]]))[0, len(prompt) - 1 :]
    return (logits_TV / temperature).log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


def test_it_samples_for_a_trainer_and_takes_its_weights(
    sglang: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last of all, and the first weights come back: the others of this file ask the same engine."""
    policy, tokenizer = load_pretrained(model_dir), load_tokenizer(model_dir)
    engine, told = RemoteEngine(sglang, KEY, num_requests=2, seconds=60.0), list[str]()
    engine.check()
    prompts = [prompt_ids(tokenizer, f"{number} + 1 = ?") for number in range(3)]
    sync = WeightSync(engine, tmp_path / "weights", canary=prompts[0], tolerance=1e-3, tell=told.append)
    sync.sync(policy, tokenizer, 0)
    with torch.no_grad():
        policy.lm_head.weight.mul_(1.3)
    sync.sync(policy, tokenizer, 1)
    assert not told and [path.name for path in (tmp_path / "weights").iterdir()] == ["step_00000001"]
    groups = engine.generate(prompts, num_samples=4, max_new_tokens=12, temperature=0.8, seed=1)
    assert [len(group) for group in groups] == [4, 4, 4] and len({tuple(one.tokens) for one in groups[0]}) > 1
    for prompt, group in zip(prompts, groups, strict=True):
        for one in group:
            own = logprobs_of(policy, prompt, one.tokens, 0.8)
            torch.testing.assert_close(torch.tensor(one.logprobs), own, atol=1e-4, rtol=0)
            assert (one.finish_reason == "stop") == (one.tokens[-1] == tokenizer.eos_token_id)
            assert one.finish_reason == "stop" or len(one.tokens) == 12
    real = engine.update
    with torch.no_grad():
        policy.lm_head.weight.mul_(1.1)
    monkeypatch.setattr(engine, "update", lambda _directory, version: setattr(engine, "version", version))
    with pytest.raises(EngineError, match="checksum"):
        sync.sync(policy, tokenizer, 2)
    monkeypatch.setattr(engine, "update", lambda _directory, version: real(model_dir, version))
    with pytest.raises(EngineError, match="canary"):
        sync.sync(policy, tokenizer, 3)
    monkeypatch.undo()
    sync.sync(load_pretrained(model_dir), tokenizer, 4)
    sync.close()
