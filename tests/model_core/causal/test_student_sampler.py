"""Completions of a student: those of the slow obvious way, told alike whatever decodes beside them."""

from __future__ import annotations

import pytest
import torch

from model_core.causal import StudentSampler
from model_core.errors import ConfigError
from tests.model_core.causal.students import student

PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8]]


def sampler(*, max_rows: int = 8, eos: int = 23) -> StudentSampler:
    return StudentSampler(student(), eos_token_id=eos, pad_token_id=0, max_rows=max_rows)


def test_greedy_completions_are_those_without_a_cache() -> None:
    made = sampler()
    for prompt, (completion,) in zip(PROMPTS, made.generate(PROMPTS, max_new_tokens=9, temperature=0.0), strict=True):
        tokens = list(prompt)
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            with torch.no_grad():
                logprobs_V = made.model(torch.tensor([tokens]))[0, -1].log_softmax(-1)
            assert token == int(logprobs_V.argmax()) and logprob == pytest.approx(float(logprobs_V.max()), abs=1e-5)
            tokens.append(token)
        assert len(completion.tokens) == 9 or completion.tokens[-1] == 23


def test_an_end_token_ends_a_completion() -> None:
    longest = sampler().generate(PROMPTS, max_new_tokens=9, temperature=0.0)
    ends = longest[0][0].tokens[2]
    for (whole,), (cut,) in zip(longest, sampler(eos=ends).generate(PROMPTS, max_new_tokens=9, temperature=0.0), strict=True):
        num = whole.tokens.index(ends) + 1 if ends in whole.tokens else 9
        assert cut.tokens == whole.tokens[:num] and len(cut.logprobs) == num
        assert cut.finish_reason == ("stop" if ends in whole.tokens else "length")


def test_a_seed_is_a_draw_however_many_rows_decode_together() -> None:
    drawn = [
        [[one.tokens for one in group] for group in sampler(max_rows=rows).generate(
            PROMPTS, num_samples=3, max_new_tokens=6, temperature=1.0, top_p=0.9, seed=seed)]
        for rows, seed in ((8, 1), (8, 1), (2, 1), (8, 2))
    ]
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3]
    assert [len(group) for group in drawn[0]] == [3, 3, 3] and len({tuple(one) for one in drawn[0][0]}) > 1


def test_what_does_not_fit_the_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="context is 32 tokens"):
        sampler().generate(PROMPTS, max_new_tokens=28)
    assert sampler().generate([], max_new_tokens=4) == []
