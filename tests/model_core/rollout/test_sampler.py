"""The fast sampler against the obvious one: the whole sequence through the model for every token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_core.config import ModelConfig
from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.rollout import Sampler
from model_core.rollout.sampling import draw

EOS, PAD = 1, 0


def model(**changes: Any) -> Transformer:
    torch.manual_seed(3)
    built = Transformer(ModelConfig.parse({"vocab_size": 40, "hidden_size": 64, "max_position_embeddings": 64} | changes))
    with torch.no_grad():
        built.lm_head.weight.normal_(0, 0.3)
    return built.eval()


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 40, (3 + i % 7,), generator=generator).tolist() for i in range(count)]


@torch.no_grad()
def obvious_greedy(built: Transformer, prompt: list[int], max_new_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        tokens.append(int(built(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == EOS:
            break
    return tokens[len(prompt) :]


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 24}, {"n_group": 4, "topk_group": 2}])
@pytest.mark.parametrize("max_rows", [4, 512])
def test_greedy_is_the_obvious_greedy(changes: dict[str, Any], max_rows: int) -> None:
    built, asked = model(**changes), prompts(10)
    sampler = Sampler(built, eos_token_id=EOS, pad_token_id=PAD, max_rows=max_rows)
    drawn = sampler.generate(asked, max_new_tokens=20, temperature=0)
    assert [group[0].tokens for group in drawn] == [obvious_greedy(built, prompt, 20) for prompt in asked]


@torch.no_grad()
def test_logprobs_are_those_of_the_full_forward() -> None:
    built = model()
    sampler = Sampler(built, eos_token_id=EOS, pad_token_id=PAD, max_rows=5)
    for prompt, group in zip(prompts(4), sampler.generate(prompts(4), num_samples=3, max_new_tokens=12, temperature=0.7), strict=True):
        for completion in group:
            whole = torch.tensor([prompt + completion.tokens])
            full = (built(whole)[0] / 0.7).log_softmax(-1)[len(prompt) - 1 : -1]
            expected = full.gather(1, whole[0, len(prompt) :, None])[:, 0]
            assert (expected - torch.tensor(completion.logprobs)).abs().max() < 1e-5


def test_same_seed_same_tokens_and_another_seed_others() -> None:
    sampler = Sampler(model(), eos_token_id=EOS, pad_token_id=PAD)
    first, again, other = (sampler.generate(prompts(6), num_samples=2, max_new_tokens=16, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert any(a.tokens != b.tokens for a, b in first)


def test_finish_reasons_are_true() -> None:
    drawn = Sampler(model(), eos_token_id=EOS, pad_token_id=PAD).generate(prompts(30), num_samples=4, max_new_tokens=10)
    completions = [completion for group in drawn for completion in group]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert (completion.tokens[-1] == EOS) == (completion.finish_reason == "stop")
        assert EOS not in completion.tokens[:-1] and 1 <= len(completion.tokens) <= 10


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]]).expand(20_000, 3)
    tokens, _ = draw(logits, temperature=1.0, top_p=1.0, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(tokens, minlength=3) / len(tokens)
    assert (shares - logits[0].softmax(-1)).abs().max() < 0.012
    cut, _ = draw(logits, temperature=1.0, top_p=0.6, generator=torch.Generator().manual_seed(0))
    assert set(cut.tolist()) == {0}


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"60 tokens.* 20.*64"):
        Sampler(model(), eos_token_id=EOS, pad_token_id=PAD).generate([[2] * 60], max_new_tokens=20)
