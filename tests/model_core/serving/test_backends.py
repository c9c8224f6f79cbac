"""What stands behind the server: the echo, and a tiny real model in its decoding thread, both by what they promise."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.data.tokenizer import BOS, completion_ids, decode, prompt_ids
from model_core.errors import ConfigError
from model_core.rollout import Sampler
from model_core.serving import backend as backends
from model_core.serving.backend import RATE_SECONDS, RECENT, FakeBackend, ModelBackend, Piece, Sampling, Timings
from model_core.serving.protocol import METRICS, given_up
from tests.model_core.serving.asked import chat, complete, events


def said(backend: Any, prompt: list[int], **values: Any) -> list[Piece]:
    async def collect() -> list[Piece]:
        return [piece async for piece in backend.generate(prompt, Sampling(**values))]

    return asyncio.run(collect())


def loaded(directory: Path, *, num_rows: int = 2) -> ModelBackend:
    made, deadline = ModelBackend(directory, num_rows=num_rows, num_threads=1, device="cpu"), time.monotonic() + 60
    while made.phase == "loading":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return made


@pytest.fixture(scope="module")
def backend(model_dir: Path) -> Iterator[ModelBackend]:
    threads = torch.get_num_threads()
    made = loaded(model_dir)
    assert made.phase == "ready", made.detail
    yield made
    made.close()
    torch.set_num_threads(threads)


# The echo.


@given(st.text(st.sampled_from("ab ü😀\n"), max_size=12), st.none() | st.integers(1, 12))
@settings(deadline=None)
def test_the_echo_says_the_last_message_again_word_by_word(text: str, limit: int | None) -> None:
    backend = FakeBackend()
    pieces = said(backend, backend.encode([{"role": "user", "content": "before"}, {"role": "user", "content": text}]), max_tokens=limit)
    whole = f"<think>I repeat.</think>{text}"
    assert whole.startswith(told := "".join(piece.text for piece in pieces))
    num_words = 5 + text.count(" ")
    assert [piece.num_tokens for piece in pieces] == list(range(1, min(num_words, limit or num_words) + 1))
    why = "stop" if len(pieces) == num_words else "length"
    assert [piece.finish_reason for piece in pieces] == [*[None] * (len(pieces) - 1), why] and (why == "length" or told == whole)
    assert backend.metrics() == {"running": 0, "queued": 0}


def test_the_echo_refuses_what_does_not_fit_its_context() -> None:
    assert said(FakeBackend(context=8), [65] * 7, max_tokens=1)
    for length, limit in ((8, None), (7, 2)):
        with pytest.raises(ConfigError, match="context of 8") as caught:
            said(FakeBackend(context=8), [65] * length, max_tokens=limit)
        assert caught.value.field == "prompt"


async def test_an_echo_that_nobody_hears_any_more_does_not_run() -> None:
    backend = FakeBackend()
    heard = backend.generate([65, 32, 66], Sampling())
    await anext(heard)
    assert backend.metrics()["running"] == 1
    await heard.aclose()  # type: ignore[attr-defined]
    assert backend.metrics()["running"] == 0


# What was measured lately.


def test_rates_are_of_late_and_means_of_the_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(backends, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timings = Timings()
    assert timings.summary() == {"ttft_seconds": None, "inter_token_seconds": None, "tokens_per_second": 0.0}
    for number in range(3 * RECENT):
        timings.ttft.append(float(number))
        timings.times.append(number / 100)
    now[0] = 3 * RECENT / 100
    found = timings.summary()
    assert found["ttft_seconds"] == 2 * RECENT + (RECENT - 1) / 2, "the mean of the last ones"
    assert found["tokens_per_second"] == 3 * RECENT / RATE_SECONDS
    now[0] += RATE_SECONDS
    assert timings.summary()["tokens_per_second"] == 0.0, "an engine at rest has no rate"
    assert set(found) <= set(METRICS)


# A real model.


@pytest.mark.parametrize("question", ["17 + 25", "", "Über 😀"])
def test_pieces_are_the_tokens_of_the_sampler(backend: ModelBackend, question: str) -> None:
    words: Any = backend.tokenizer
    prompt = prompt_ids(words, question)
    assert backend.encode([{"role": "user", "content": question}]) == prompt
    pieces = said(backend, prompt, max_tokens=12, temperature=0)
    model, pad = backend.sampler.model, int(words.pad_token_id)
    sampler = Sampler(model, eos_token_id=backend.sampler.eos, pad_token_id=pad)
    completion = sampler.generate([prompt], max_new_tokens=12, temperature=0)[0][0]
    assert "".join(piece.text for piece in pieces) == decode(words, completion.tokens)
    assert [piece.num_tokens for piece in pieces] == list(range(1, len(completion.tokens) + 1))
    assert pieces[-1].finish_reason == completion.finish_reason and not any(piece.scored for piece in pieces)


def test_a_bare_text_comes_after_the_beginning(backend: ModelBackend) -> None:
    words: Any = backend.tokenizer
    ids = backend.encode("17 + 25 😀")
    assert ids[0] == words.convert_tokens_to_ids(BOS) and decode(words, ids) == "17 + 25 😀"
    assert backend.encode("") == ids[:1]


def test_an_answer_without_a_limit_may_fill_the_context_and_no_more(backend: ModelBackend) -> None:
    prompt = backend.encode("17")
    pieces = said(backend, prompt, temperature=0)
    assert pieces[-1].finish_reason == "stop" or len(prompt) + len(pieces) == backend.context == 128
    longest = [*prompt, *[5] * (backend.context - 1 - len(prompt))]
    assert len(said(backend, longest)) == 1
    with pytest.raises(ConfigError, match=r"128 tokens"):
        said(backend, [*longest, 5])


def test_a_completion_depends_on_its_seed_and_on_nobody_beside_it(backend: ModelBackend) -> None:
    """The completions of one request are those of its seed and of the seeds after it, asked for one by one."""
    values: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0}
    together = [choice["text"] for choice in complete(backend, "17", n=4, seed=5, **values).json()["choices"]]
    alone = [complete(backend, "17", seed=5 + number, **values).json()["choices"][0]["text"] for number in range(4)]
    assert together == alone and len(set(together)) > 1


def test_each_token_is_scored_when_asked(backend: ModelBackend) -> None:
    """As the model's own forward pass scores it."""
    prompt = backend.encode("17 + 25")
    pieces = said(backend, prompt, max_tokens=4, temperature=0, num_top=3)
    model = backend.sampler.model
    tokens = Sampler(model, eos_token_id=-1, pad_token_id=0).generate([prompt], max_new_tokens=4, temperature=0)[0][0].tokens
    with torch.inference_mode():
        logprobs_TV = model(torch.tensor([[*prompt, *tokens]]))[0].log_softmax(-1)
    for place, (piece, token) in enumerate(zip(pieces, tokens, strict=True)):
        (scored,) = piece.scored
        expected, _ids = logprobs_TV[len(prompt) - 1 + place].topk(3)
        assert [logprob for _text, logprob in scored.top] == pytest.approx(expected.tolist(), abs=1e-4)
        assert scored.logprob == pytest.approx(float(logprobs_TV[len(prompt) - 1 + place, token]), abs=1e-4)
    assert all(piece.scored[0].top == () for piece in said(backend, prompt, max_tokens=2, num_top=0))


def test_an_engine_at_rest_holds_nothing(backend: ModelBackend) -> None:
    for stream in (False, True):
        answer = chat(backend, "17", max_tokens=3, stream=stream)
        assert answer.status_code == 200 and (not stream or events(answer)[-1] == "[DONE]")
    found = backend.metrics()
    assert set(found) == set(METRICS) and (found["running"], found["queued"], found["kv_use"]) == (0, 0, 0)
    assert found["ttft_seconds"] > 0 and found["inter_token_seconds"] > 0 and found["tokens_per_second"] > 0


@pytest.mark.parametrize(("harm", "words"), [("config.json", r"config\.json"), ("tokenizer", "tokenizer .* cannot be read")])
def test_a_directory_that_cannot_be_served_is_given_up_with_its_sentence(
    harm: str, words: str, model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(model_dir, tmp_path / "model")
    for path in (tmp_path / "model").glob(f"*{harm}*"):
        path.unlink()
    with caplog.at_level(logging.ERROR):
        broken = loaded(tmp_path / "model")
        assert broken.broken.wait(10)
    broken.close()
    assert broken.phase == "failed" and broken.metrics() == {}
    sentence = given_up("\n".join(record.getMessage() for record in caplog.records))
    assert sentence == " ".join(broken.detail.split())
    assert re.search(words, sentence)
    refused = chat(broken, "17")
    assert refused.status_code == 503 and refused.json()["error"]["message"].endswith(broken.detail)


@pytest.mark.parametrize("begun", ["<think>1 + 2", "<think>3</think>The", "3", "ü😀", "<|end|>"])
def test_an_answer_goes_on_behind_what_training_would_have_seen(backend: ModelBackend, begun: str) -> None:
    """The beginning is read as a completion is, without its end; marks of the template inside it stay plain text."""
    words: Any = backend.tokenizer
    prompt = prompt_ids(words, "1 + 2")
    made = backend.encode([{"role": "user", "content": "1 + 2"}], begun=begun)
    assert made == [*prompt, *completion_ids(words, begun)[:-1]] and backend.sampler.eos not in made[len(prompt) :]
    assert decode(words, made[len(prompt) :]) == begun
    sampler = Sampler(backend.sampler.model, eos_token_id=backend.sampler.eos, pad_token_id=int(words.pad_token_id))
    expected = sampler.generate([made], max_new_tokens=4, temperature=0)[0][0]
    assert "".join(piece.text for piece in said(backend, made, max_tokens=4, temperature=0)) == decode(words, expected.tokens)
