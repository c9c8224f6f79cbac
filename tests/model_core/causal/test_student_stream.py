"""A student that is served: whoever decodes beside a request, its answer is that of the sampler."""

from __future__ import annotations

import pytest
import torch

from model_core.causal import StudentSampler
from model_core.causal.stream import StudentStream
from model_core.rollout.stream import Request, Token
from tests.model_core.causal.students import student

PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8], [9, 10, 11, 12, 13, 14, 15, 16], [17]]
EOS = 23


def asked(prompt: list[int], num: int, **values: float) -> tuple[Request, list[Token]]:
    heard: list[Token] = []
    return Request(prompt, num, heard.append, **values), heard  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("num_rows", [1, 2, 4])
def test_greedy_answers_are_those_of_the_sampler_in_any_company(kind: str, num_rows: int) -> None:
    model = student(kind)
    limits = [9, 2, 7, 5, 12]
    stream = StudentStream(model, eos_token_id=EOS, num_rows=num_rows)
    requests = [asked(prompt, limit, temperature=0.0) for prompt, limit in zip(PROMPTS, limits, strict=True)]
    for request, _heard in requests[:2]:
        stream.submit(request)
    stream.step()
    stream.step()
    for request, _heard in requests[2:]:
        stream.submit(request)
    while stream.step():
        pass
    sampler = StudentSampler(model, eos_token_id=EOS, pad_token_id=0)
    for prompt, limit, (_request, heard) in zip(PROMPTS, limits, requests, strict=True):
        ((alone,),) = sampler.generate([prompt], max_new_tokens=limit, temperature=0.0)
        assert [token.id for token in heard] == alone.tokens
        assert [token.logprob for token in heard] == pytest.approx(alone.logprobs, abs=1e-5)
        assert heard[-1].finish == alone.finish_reason
    assert stream.running == 0 and stream.fill == 0.0


def test_a_row_that_leaves_takes_its_padding_along() -> None:
    stream = StudentStream(student(), eos_token_id=-1, num_rows=2)
    long, _ = asked(PROMPTS[3], 2)
    short, heard = asked(PROMPTS[1], 6)
    stream.submit(long)
    stream.submit(short)
    stream.step()
    assert stream._mask_BS.shape == (1, 2), "the long one has ended: two tokens of the short one are cached"
    stream.cancel(short)
    assert not stream.step() and stream._mask_BS.numel() == 0 and len(heard) == 2


def test_new_weights_abort_who_decodes_and_answer_who_waits() -> None:
    old, new = student(), student()
    with torch.no_grad():
        new.lm_head.weight.neg_()
    stream = StudentStream(old, eos_token_id=-1, num_rows=1)
    (running, cut), (waiting, whole) = (asked(PROMPTS[0], 4, temperature=0.0) for _ in range(2))
    stream.submit(running)
    stream.submit(waiting)
    stream.step()
    stream.replace(new)
    while stream.step():
        pass
    ((expected,),) = StudentSampler(new, eos_token_id=-1, pad_token_id=0).generate([PROMPTS[0]], max_new_tokens=4, temperature=0.0)
    assert cut[-1].finish == "abort" and [token.id for token in whole] == expected.tokens
    assert [token.id for token in cut[:-1]] != expected.tokens[: len(cut) - 1]
