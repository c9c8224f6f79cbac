"""Requests that join and leave at any time get what they would have got alone."""

from __future__ import annotations

import pytest
import torch

from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.rollout import Sampler
from model_core.rollout.stream import Request, StreamingSampler, Token
from tests.model_core.reference.plain_decoding import logprobs
from tests.model_core.rollout.shapes import EOS, PAD, named, prompts


@pytest.fixture
def model() -> Transformer:
    return named("plain")


class Heard:
    """What one request was given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.told: list[Token] = []
        self.finish: str | None = None

    def __call__(self, token: Token) -> None:
        assert self.finish is None, "nothing comes after the last token"
        self.tokens.append(token.id)
        self.told.append(token)
        self.finish = token.finish


def drain(sampler: StreamingSampler) -> None:
    while sampler.step():
        pass


def test_greedy_equals_the_batch_sampler_whenever_requests_join(model: Transformer) -> None:
    given = prompts(9)
    reference = Sampler(model, eos_token_id=EOS, pad_token_id=PAD).generate(given, max_new_tokens=20, temperature=0)
    sampler = StreamingSampler(model, eos_token_id=EOS, num_rows=3)
    heard = [Heard() for _ in given]
    for prompt, sink in zip(given, heard, strict=True):
        sampler.submit(Request(prompt, 20, sink, temperature=0))
        sampler.step()
    drain(sampler)
    assert [h.tokens for h in heard] == [group[0].tokens for group in reference]
    assert [h.finish for h in heard] == [group[0].finish_reason for group in reference]
    assert sampler.running == sampler.queued == 0


def test_a_seed_gives_the_same_tokens_in_any_company(model: Transformer) -> None:
    prompt, alone, together = prompts(1)[0], Heard(), Heard()
    sampler = StreamingSampler(model, eos_token_id=EOS, num_rows=4)
    sampler.submit(Request(prompt, 15, alone, temperature=1.0, top_p=0.9, seed=5))
    drain(sampler)
    for number, other in enumerate(prompts(3)):
        sampler.submit(Request(other, 10, Heard(), temperature=0.7, seed=number))
    sampler.submit(Request(prompt, 15, together, temperature=1.0, top_p=0.9, seed=5))
    drain(sampler)
    assert alone.tokens == together.tokens


def test_a_cancelled_request_frees_its_row_and_hears_no_more(model: Transformer) -> None:
    sampler = StreamingSampler(model, eos_token_id=EOS, num_rows=1)
    first, second = Heard(), Heard()
    running = Request(prompts(1)[0], 50, first, temperature=0)
    sampler.submit(running)
    sampler.submit(Request(prompts(2)[1], 3, second, temperature=0))
    sampler.step()
    told = len(first.tokens)
    sampler.cancel(running)
    drain(sampler)
    assert len(first.tokens) == told and second.finish is not None


def test_what_does_not_fit_the_context_is_refused(model: Transformer) -> None:
    sampler = StreamingSampler(model, eos_token_id=EOS, num_rows=1)
    with pytest.raises(ConfigError, match="context of 64"):
        sampler.submit(Request([2] * 60, 5, Heard()))
    with pytest.raises(ConfigError, match="no token"):
        sampler.submit(Request([], 5, Heard()))
    assert sampler.queued == 0


def test_requests_with_every_way_of_sampling_share_a_step_and_get_what_they_get_alone(model: Transformer) -> None:
    ways = [
        {"temperature": 0.0}, {"temperature": 1.0, "top_k": 3}, {"temperature": 1.4, "min_p": 0.2}, {"temperature": 0.8},
        {"temperature": 1.0, "top_p": 0.5}, {"temperature": 1.0, "top_p": 1.0},
    ]  # fmt: skip
    together = StreamingSampler(model, eos_token_id=EOS, num_rows=8)
    shared = [Heard() for _ in ways]
    for number, (way, sink) in enumerate(zip(ways, shared, strict=True)):
        together.submit(Request(prompts(9)[number], 12, sink, seed=number, **way))
    drain(together)
    for number, (way, heard) in enumerate(zip(ways, shared, strict=True)):
        alone, sampler = Heard(), StreamingSampler(model, eos_token_id=EOS, num_rows=1)
        sampler.submit(Request(prompts(9)[number], 12, alone, seed=number, **way))
        drain(sampler)
        assert alone.tokens == heard.tokens


def test_a_row_keeps_its_own_tokens_when_others_leave_and_says_their_logprobs(model: Transformer) -> None:
    sampler = StreamingSampler(model, eos_token_id=-1, num_rows=4)
    sinks = [Heard() for _ in range(4)]
    requests = [Request(prompts(4)[i], (3, 6, 20, 9)[i], sinks[i], temperature=0.9, seed=i, num_top=2) for i in range(4)]
    for request in requests:
        sampler.submit(request)
    for _ in range(7):
        sampler.step()
    assert sampler.running == 2 and 0 < sampler.fill < 1
    sampler.cancel(requests[3])
    drain(sampler)
    for number in range(3):
        said = torch.tensor([token.logprob for token in sinks[number].told])
        assert (logprobs(model, prompts(4)[number], sinks[number].tokens, 0.9) - said).abs().max() < 1e-5
        assert all(len(token.top) == 2 and token.top[0][1] >= token.logprob - 1e-5 for token in sinks[number].told)


def test_when_decoding_has_broken_down_everybody_hears_it(model: Transformer) -> None:
    sampler = StreamingSampler(model, eos_token_id=-1, num_rows=1)
    running, waiting = Heard(), Heard()
    sampler.submit(Request(prompts(1)[0], 9, running, temperature=0))
    sampler.step()
    sampler.submit(Request(prompts(1)[0], 9, waiting, temperature=0))
    sampler.fail()
    assert running.finish == waiting.finish == "error" and not sampler.step()
