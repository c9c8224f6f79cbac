"""Drawing follows the distribution that was asked for, and a cut leaves over what its definition says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.config import ModelConfig
from model_core.model import Transformer
from model_core.rollout import Sampler, batch
from model_core.rollout.sampling import Cut, draw, most_likely
from tests.model_core.training.in_process import SHAPE

NUM = 20_000
QUANTILE = 4.0
"""Standard deviations above its mean at which a statistic of chi-square is called wrong: one seed in 30,000."""


def uniform(num: int, seed: int = 0) -> Tensor:
    return torch.rand(num, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fits(counts: Tensor, probabilities: Tensor) -> bool:
    """Pearson's chi-square against the probabilities; what has none must not occur."""
    assert int(counts[probabilities == 0].sum()) == 0
    expected = probabilities[probabilities > 0].double() * counts.sum()
    statistic, freedom = ((counts[probabilities > 0] - expected) ** 2 / expected).sum(), int((probabilities > 0).sum()) - 1
    return bool(statistic <= freedom + QUANTILE * math.sqrt(2 * freedom) + QUANTILE**2)


def counted(logits_V: Tensor, *, temperature: float, cut: Cut | None = None) -> Tensor:
    tokens_B, _logprobs = draw(logits_V.expand(NUM, -1), uniform(NUM), temperature=temperature, cut=cut)
    return torch.bincount(tokens_B, minlength=len(logits_V))


LOGITS_V = torch.randn(12, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_tokens_are_as_frequent_as_the_tempered_softmax_says(temperature: float) -> None:
    counts = counted(LOGITS_V, temperature=temperature)
    assert fits(counts, (LOGITS_V / temperature).softmax(-1))
    assert not fits(counts, (LOGITS_V / (temperature * 1.15)).softmax(-1)), "the test can tell"


@pytest.mark.parametrize("cut", [Cut(top_p=0.8), Cut(top_k=5), Cut(min_p=0.2), Cut(top_p=0.9, top_k=6, min_p=0.05)])
def test_what_a_cut_leaves_over_keeps_its_proportions(cut: Cut) -> None:
    allowed = torch.tensor(plain_cut(LOGITS_V.softmax(-1).tolist(), cut))
    kept_V = LOGITS_V.softmax(-1) * allowed
    assert 1 < int(allowed.sum()) < 12 and fits(counted(LOGITS_V, temperature=1.0, cut=cut), kept_V / kept_V.sum())


def plain_cut(probabilities: list[float], cut: Cut) -> list[bool]:
    """By the words of `Cut`: rank by rank, beginning with the likeliest."""
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    kept, reached = [False] * len(probabilities), 0.0
    for rank, token in enumerate(order):
        is_in = reached < float(cut.top_p) and (float(cut.top_k) <= 0 or rank < float(cut.top_k))
        kept[token] = is_in and probabilities[token] >= float(cut.min_p) * probabilities[order[0]]
        reached += probabilities[token]
    return kept


def allowed_by(logits_BV: Tensor, cut: Cut | None, temperature: float | Tensor = 1.0) -> list[set[int]]:
    """What each row can draw, by a fine comb of uniform numbers."""
    comb = torch.linspace(0, 1 - 1e-9, 4000, dtype=torch.float64)
    return [set(draw(row_V.expand(len(comb), -1), comb, temperature=temperature if isinstance(temperature, float) else
                     temperature[row].item(), cut=cut)[0].tolist()) for row, row_V in enumerate(logits_BV)]


# Probabilities that no rounding of a sum can bring to a limit: they are multiples of 1/64 and the limits lie between.
WEIGHTS = st.lists(st.integers(1, 20), min_size=2, max_size=8, unique=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(WEIGHTS, st.integers(1, 9), st.integers(-1, 9), st.floats(0.0, 0.95))
def test_a_cut_is_what_its_words_say(weights: list[int], tenths: int, top_k: int, min_p: float) -> None:
    probabilities = [weight / sum(weights) for weight in weights]
    cut = Cut(top_p=tenths / 10 + 0.001234567, top_k=top_k, min_p=min_p + 0.000123)
    expected = {token for token, kept in enumerate(plain_cut(probabilities, cut)) if kept}
    assert allowed_by(torch.tensor([probabilities]).log(), cut) == [expected]


def test_rows_with_settings_of_their_own_draw_what_each_draws_alone() -> None:
    logits_BV, uniform_B = torch.randn(50, 9, generator=torch.Generator().manual_seed(1)), uniform(50, 2)
    temperature_B1 = torch.linspace(0.2, 2, 50)[:, None]
    top_p_B1, top_k_B1 = torch.linspace(0.1, 1.2, 50)[:, None], torch.arange(50)[:, None] % 7
    min_p_B1 = torch.linspace(0, 0.9, 50)[:, None]
    together = draw(logits_BV, uniform_B, temperature=temperature_B1, cut=Cut(top_p_B1, top_k_B1, min_p_B1))
    for row in range(50):
        own = Cut(float(top_p_B1[row]), int(top_k_B1[row]), float(min_p_B1[row]))
        token, logprob = draw(logits_BV[row : row + 1], uniform_B[row : row + 1], temperature=float(temperature_B1[row]), cut=own)
        assert int(token) == int(together[0][row]) and float(logprob) == pytest.approx(float(together[1][row]), abs=1e-5)


def test_logprobs_are_of_the_distribution_before_the_cut() -> None:
    tokens_B, logprobs_B = draw(LOGITS_V.expand(100, -1), uniform(100), temperature=0.7, cut=Cut(top_k=2))
    assert torch.allclose(logprobs_B, (LOGITS_V / 0.7).log_softmax(-1)[tokens_B], atol=1e-5)


def test_a_larger_uniform_number_never_draws_an_earlier_token() -> None:
    ordered_B = uniform(500).sort().values
    tokens_B, _logprobs = draw(LOGITS_V.expand(500, -1), ordered_B)
    assert torch.equal(tokens_B, tokens_B.sort().values)


def test_a_cut_to_one_and_a_low_temperature_are_the_likeliest() -> None:
    logits_BV = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    best_B, logprobs_B = most_likely(logits_BV)
    for cut, temperature in ((Cut(top_k=1), 1.0), (Cut(min_p=1.0), 1.3), (Cut(top_p=1e-9), 1.0), (None, 2e-3)):
        assert torch.equal(draw(logits_BV, uniform(40), temperature=temperature, cut=cut)[0], best_B)
    assert torch.allclose(logprobs_B, logits_BV.log_softmax(-1).amax(-1), atol=1e-6)


def test_very_unlike_logits_do_not_overflow() -> None:
    logits_BV = torch.tensor([[1e38, 0.0, -1e38], [-1e38, -1e38, -1e38], [50.0, 90.0, -90.0]])
    tokens_B, logprobs_B = draw(logits_BV, torch.tensor([0.999, 0.5, 0.5], dtype=torch.float64), temperature=0.5)
    assert tokens_B.tolist() == [0, 1, 1] and torch.isfinite(logprobs_B).all()


def tiny() -> Transformer:
    torch.manual_seed(2)
    model = Transformer(ModelConfig.parse({**SHAPE, "vocab_size": 6})).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.4)
    return model


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7)])
def test_whole_answers_are_as_frequent_as_the_model_says(
    monkeypatch: pytest.MonkeyPatch, temperature: float, top_p: float
) -> None:
    """Every answer of two tokens, its probability by the chain rule; rows are refilled many times. Token 5 ends."""
    model, prompt, num = tiny(), [3, 1, 2], 6000
    monkeypatch.setattr(batch, "RENEW_FRACTION", 1e-9)
    sampler = Sampler(model, eos_token_id=5, pad_token_id=0, max_rows=700)
    (drawn,) = sampler.generate([prompt], num_samples=num, max_new_tokens=2, temperature=temperature, top_p=top_p, seed=11)
    counts, probabilities = torch.zeros(36), torch.zeros(36)
    for completion in drawn:
        first, second = (*completion.tokens, completion.tokens[0])[:2]
        counts[first * 6 + second] += 1

    def following(tokens: list[int]) -> Tensor:
        with torch.no_grad():
            probs_V = (model(torch.tensor([tokens]))[0, -1] / temperature).softmax(-1)
        kept_V = probs_V * torch.tensor(plain_cut(probs_V.tolist(), Cut(top_p=top_p if top_p < 1 else 2.0)))
        normalised_V: Tensor = kept_V / kept_V.sum()
        return normalised_V

    for first, chance in enumerate(following(prompt)):
        if first == 5:
            probabilities[35] = chance
        else:
            probabilities[first * 6 : first * 6 + 6] = chance * following([*prompt, first])
    assert float(probabilities.sum()) == pytest.approx(1) and fits(counts, probabilities)
