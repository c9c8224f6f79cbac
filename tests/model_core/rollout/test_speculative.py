"""Drafts change no token, whether they are right or wrong; drawn tokens do without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_core.model import Transformer
from model_core.rollout import Sampler, sampler
from model_core.rollout import decoder as decoding
from model_core.rollout.batch import Wish
from model_core.rollout.cache import LatentCache
from model_core.rollout.decoder import Decoder
from model_core.rollout.speculative import Drafter, Speculation
from tests.model_core.reference.plain_decoding import greedy, logprobs
from tests.model_core.reference.plain_model import next_hidden
from tests.model_core.rollout.shapes import EOS, PAD, made, prompts

GEOMETRIES: list[dict[str, Any]] = [
    {}, {"q_lora_rank": 24, "tie_word_embeddings": True}, {"kv_lora_rank": 13, "n_group": 4, "topk_group": 2},
    {"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 16}, "n_shared_experts": 0},
]


def drafting(seed: int = 3, **changes: Any) -> Transformer:
    return made(seed, num_nextn_predict_layers=1, **changes)


def same_every_time(model: Transformer) -> Transformer:
    """A model that says 7 whatever it is asked: each of its drafts is right."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[7] = 1.0
        for norm in (model.model.norm, model.next_token_block.shared_head.norm):  # type: ignore[union-attr]
            norm.weight.zero_()
    return model


@pytest.mark.parametrize("changes", GEOMETRIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_tokens_are_those_of_plain_greedy_decoding(seed: int, changes: dict[str, Any]) -> None:
    model, asked = drafting(seed, **changes), prompts(5, seed)
    expected = [greedy(model, prompt, 16, eos=EOS) for prompt in asked]
    for max_rows in (1, 3):
        fast = Sampler(model, eos_token_id=EOS, pad_token_id=PAD, max_rows=max_rows)
        drawn = [group[0] for group in fast.generate(asked, max_new_tokens=16, temperature=0)]
        assert [completion.tokens for completion in drawn] == expected
        for prompt, completion in zip(asked, drawn, strict=True):
            assert (completion.tokens[-1] == EOS) == (completion.finish_reason == "stop")
            said = torch.tensor(completion.logprobs)
            assert (logprobs(model, prompt, completion.tokens) - said).abs().max() < 1e-5


@torch.no_grad()
def speculated(model: Transformer, asked: list[list[int]], max_new_tokens: int) -> Speculation:
    work = Speculation(model, Wish(asked, 1, max_new_tokens, 0.0, 1.0, 0, EOS, PAD), 2)
    work.run()
    return work


@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 10])
def test_right_drafts_halve_the_steps_and_overrun_no_limit(max_new_tokens: int) -> None:
    work = speculated(same_every_time(drafting()), prompts(2), max_new_tokens)
    tokens = [group[0].tokens for group in work.completions]
    assert len(set(map(tuple, tokens))) == 1 and len(tokens[0]) == max_new_tokens
    assert work.num_steps == 2 * (max_new_tokens // 2)


@torch.no_grad()
def test_first_drafts_are_what_multi_token_prediction_says_of_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = drafting(), prompts(3)[2]
    hidden_1TD, _latents = model.hidden(torch.tensor([prompt]))
    following = [*prompt, int(model.lm_head(hidden_1TD[0, -1]).argmax())]
    expected = model.lm_head(next_hidden(model, following)).argmax(dim=-1)
    decoder, tokens, length = Decoder(model), torch.tensor([prompt]), torch.tensor([len(prompt)])
    for limit in (128, 0):
        monkeypatch.setattr(decoding, "READ_UP_TO_TOKENS", limit)
        cache = LatentCache(model, 1, 12, has_draft=True)
        hidden_1TD, place = decoder.read(cache, tokens, length)
        assert torch.equal(Drafter(model).read(cache, hidden_1TD, torch.tensor([following[1:]]), place)[0], expected)


def test_as_many_drafts_are_right_as_the_slow_twin_says() -> None:
    model, prompt = drafting(5), prompts(1)[0]
    work = speculated(model, [prompt], 20)
    tokens = work.completions[0][0].tokens
    accepted, place = 0, 1
    while place < len(tokens):
        with torch.no_grad():
            draft = int(model.lm_head(next_hidden(model, [*prompt, *tokens[:place]])[-1]).argmax())
        right = draft == tokens[place] and place + 1 < len(tokens)
        accepted, place = accepted + right, place + 1 + right
    assert work.num_accepted == accepted


@pytest.mark.parametrize(("temperature", "max_rows", "speculative", "expected"), [
    (0.0, 1, True, True), (0.0, 1, False, False), (1.0, 1, True, False), (0.0, 99, True, False),
])  # fmt: skip
def test_drafts_are_for_few_greedy_rows(
    monkeypatch: pytest.MonkeyPatch, temperature: float, max_rows: int, speculative: bool, expected: bool
) -> None:
    used = []
    monkeypatch.setattr(sampler, "Speculation", lambda *given: used.append(given) or Speculation(*given))
    fast = Sampler(drafting(), eos_token_id=EOS, pad_token_id=PAD, max_rows=max_rows, speculative=speculative)
    fast.generate(prompts(9), max_new_tokens=4, temperature=temperature)
    assert bool(used) == expected


def test_a_model_without_the_block_decodes_plainly() -> None:
    fast = Sampler(made(), eos_token_id=EOS, pad_token_id=PAD, max_rows=1)
    assert not fast.speculative
    drawn = fast.generate(prompts(1), max_new_tokens=5, temperature=0)
    assert drawn[0][0].tokens == greedy(made(), prompts(1)[0], 5, eos=EOS)
