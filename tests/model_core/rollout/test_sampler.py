"""The sampler against the obvious one, however rows are refilled, taken out and shared; drawing follows the distribution."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_core.errors import ConfigError
from model_core.rollout import Completion, Sampler, batch
from model_core.rollout.sampling import Cut, draw
from tests.model_core.reference.plain_decoding import greedy, logprobs
from tests.model_core.rollout.shapes import EOS, PAD, SHAPES, named, prompts


def sampler(name: str = "plain", **settings: Any) -> Sampler:
    return Sampler(named(name), eos_token_id=EOS, pad_token_id=PAD, **settings)


def flat(drawn: list[list[Completion]]) -> list[Completion]:
    return [completion for group in drawn for completion in group]


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_is_the_obvious_greedy(name: str) -> None:
    asked = prompts(7)
    expected = [greedy(named(name), prompt, 14, eos=EOS) for prompt in asked]
    for max_rows in (3, 512):
        drawn = sampler(name, max_rows=max_rows).generate(asked, max_new_tokens=14, temperature=0)
        assert [completion.tokens for completion in flat(drawn)] == expected


@pytest.mark.parametrize(("name", "temperature"), [("plain", 0.7), ("q_lora", 1.0), ("yarn", 1.3)])
def test_logprobs_are_those_of_the_full_forward(name: str, temperature: float) -> None:
    drawn = sampler(name, max_rows=5).generate(prompts(4), num_samples=3, max_new_tokens=12, temperature=temperature)
    for prompt, group in zip(prompts(4), drawn, strict=True):
        for completion in group:
            expected = logprobs(named(name), prompt, completion.tokens, temperature)
            assert (expected - torch.tensor(completion.logprobs)).abs().max() < 1e-5


def test_same_seed_same_tokens_and_another_seed_others() -> None:
    first, again, other = (sampler().generate(prompts(6), num_samples=2, max_new_tokens=16, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert any(a.tokens != b.tokens for a, b in first)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 1.0])
def test_tokens_do_not_depend_on_rows_refilling_or_chunks(monkeypatch: pytest.MonkeyPatch, fraction: float) -> None:
    asked = prompts(9)
    expected = sampler().generate(asked, num_samples=4, max_new_tokens=18, top_p=0.95, seed=3)
    for name, value in (("RENEW_FRACTION", fraction), ("PREFILL_TOKENS", 20)):
        monkeypatch.setattr(batch, name, value)
    for max_rows in (1, 5, 36):
        drawn = sampler(max_rows=max_rows).generate(asked, num_samples=4, max_new_tokens=18, top_p=0.95, seed=3)
        assert [c.tokens for c in flat(drawn)] == [c.tokens for c in flat(expected)]
        for mine, theirs in zip(flat(drawn), flat(expected), strict=True):
            assert mine.finish_reason == theirs.finish_reason
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


def test_finish_reasons_are_true() -> None:
    completions = flat(sampler().generate(prompts(30), num_samples=4, max_new_tokens=10))
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert (completion.tokens[-1] == EOS) == (completion.finish_reason == "stop")
        assert EOS not in completion.tokens[:-1] and 1 <= len(completion.tokens) <= 10
        assert len(completion.logprobs) == len(completion.tokens)


@pytest.mark.parametrize("max_new_tokens", [1, 2])
def test_the_shortest_answers(max_new_tokens: int) -> None:
    drawn = flat(sampler(max_rows=2).generate(prompts(5), max_new_tokens=max_new_tokens, temperature=0))
    assert [c.tokens for c in drawn] == [greedy(named("plain"), p, max_new_tokens, eos=EOS) for p in prompts(5)]


def test_a_prompt_may_fill_the_context_but_for_one_token() -> None:
    long = [2] * 63
    drawn = sampler().generate([long], max_new_tokens=1, temperature=0)
    assert drawn[0][0].tokens == greedy(named("plain"), long, 1, eos=EOS)


def test_the_model_is_left_as_it_was() -> None:
    model = named("plain").train()
    assert sampler().generate([], max_new_tokens=3) == []
    sampler().generate(prompts(1), max_new_tokens=3)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_drawing_follows_the_distribution_and_the_cut() -> None:
    logits_BV = torch.tensor([[2.0, 1.0, 0.0]]).expand(20_000, 3)
    uniform_B = torch.rand(len(logits_BV), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens_B, logprobs_B = draw(logits_BV, uniform_B)
    shares = torch.bincount(tokens_B, minlength=3) / len(tokens_B)
    assert (shares - logits_BV[0].softmax(-1)).abs().max() < 0.012
    assert torch.allclose(logprobs_B, logits_BV.log_softmax(-1).gather(1, tokens_B[:, None])[:, 0], atol=1e-6)
    for cut, allowed in (
        (Cut(top_p=0.6), {0}), (Cut(top_p=0.7), {0, 1}), (Cut(top_k=2), {0, 1}), (Cut(min_p=0.3), {0, 1}), (Cut(), {0, 1, 2}),
    ):  # fmt: skip
        assert set(draw(logits_BV, uniform_B, cut=cut)[0].tolist()) == allowed


def test_the_ends_of_the_uniform_numbers_draw_only_what_is_allowed() -> None:
    logits_BV = torch.tensor([[-float("inf"), 0.0, 1.0, 0.5, -float("inf")]]).expand(2, 5)
    ends_B = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits_BV, ends_B)[0].tolist() == [1, 3]
    assert draw(logits_BV, ends_B, cut=Cut(top_k=1))[0].tolist() == [2, 2]


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"60 tokens.* 20.*64"):
        sampler().generate([[2] * 60], max_new_tokens=20)
    with pytest.raises(ConfigError, match="no token"):
        sampler().generate([[2], []], max_new_tokens=2)
