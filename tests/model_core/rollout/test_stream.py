"""Requests that join and leave at any time get what they would have got alone."""

from __future__ import annotations

import pytest
import torch

from model_core.config import ModelConfig
from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.rollout import Sampler
from model_core.rollout.stream import Request, StreamingSampler, Token

EOS, PAD = 1, 0


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(3)
    built = Transformer(ModelConfig.parse({"vocab_size": 40, "hidden_size": 64, "max_position_embeddings": 64}))
    with torch.no_grad():
        built.lm_head.weight.normal_(0, 0.3)
    return built.eval()


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 40, (3 + i % 7,), generator=generator).tolist() for i in range(count)]


class Heard:
    """What one request was given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.finish: str | None = None

    def __call__(self, token: Token) -> None:
        assert self.finish is None, "nothing comes after the last token"
        self.tokens.append(token.id)
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
