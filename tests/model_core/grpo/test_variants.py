"""Every relative of GRPO is what its paper says: loss and gradient by a slow reference, and by TRL's own code on the same tensors."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.config.variants import PRESETS
from model_core.errors import ConfigError
from model_core.grpo.advantages import EPSILON, advantages_of
from model_core.grpo.loss import kl_estimate, mean_weights, policy_loss, sequence_means
from model_core.phases.reinforcement import Reinforcement
from tests.model_core.reference import plain_policy
from tests.model_core.reference.plain_policy import Sequence_

LONGEST, VOCABULARY = 12, 7
REWARDS = st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=2, max_size=5), min_size=2, max_size=4).filter(
    lambda rewards: len({reward for group in rewards for reward in group}) > 1)  # fmt: skip


class Drawn:
    """Completions of unequal length under three policies; some ratios are far enough to be clipped."""

    def __init__(self, seed: int, *, num: int = 6) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(1, LONGEST + 1, (num,), generator=generator).tolist()
        total = sum(self.lengths)
        self.new_M = -3 * torch.rand(total, generator=generator, dtype=torch.float64)
        self.old_M = self.new_M + 0.3 * torch.randn(total, generator=generator, dtype=torch.float64)
        self.reference_M = self.new_M + 0.5 * torch.randn(total, generator=generator, dtype=torch.float64)
        self.advantages_S = torch.randn(num, generator=generator, dtype=torch.float64)

    def ours(self, algorithm: str, *, beta: float = 0.0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Loss and its gradient by the tokens' log-probabilities, summed over `parts` as the passes of a minibatch are."""
        config = Reinforcement.Config.parse({"algorithm": algorithm, "max_new_tokens": LONGEST})
        new_M = self.new_M.clone().requires_grad_()
        num_tokens, total, start = len(new_M), torch.zeros((), dtype=torch.float64), 0
        cuts = [self.lengths] if parts == 1 else [[length] for length in self.lengths]
        place = 0
        for lengths in cuts:
            end = start + sum(lengths)
            weights_M = mean_weights(lengths, config.loss_mean, num_tokens=num_tokens, num_sequences=len(self.lengths), longest=LONGEST)
            advantages_M = torch.repeat_interleave(self.advantages_S[place : place + len(lengths)], torch.tensor(lengths))
            loss, _sums = policy_loss(
                new_M[start:end], self.old_M[start:end], advantages_M, clip_low=config.clip_low, clip_high=config.clip_high,
                surrogate=config.surrogate, lengths_S=lengths if config.ratio == "sequence" else None, weights_M=weights_M,
            )
            kl_M = kl_estimate(new_M[start:end], self.reference_M[start:end])
            total = total + (loss + beta * (kl_M if weights_M is None else kl_M * weights_M).sum()) / num_tokens
            start, place = end, place + len(lengths)
        total.backward()  # type: ignore[no-untyped-call]
        assert new_M.grad is not None
        return total.detach(), new_M.grad

    def plain(self, algorithm: str, *, beta: float = 0.0) -> tuple[Tensor, Tensor]:
        config = Reinforcement.Config.parse({"algorithm": algorithm})
        new_M = self.new_M.clone().requires_grad_()
        parts = [list(part) for part in new_M.split(self.lengths)]
        olds, references = (values.split(self.lengths) for values in (self.old_M, self.reference_M))
        batch = [
            Sequence_(new, old.tolist(), reference.tolist(), float(advantage))
            for new, old, reference, advantage in zip(parts, olds, references, self.advantages_S, strict=True)
        ]  # fmt: skip
        loss = plain_policy.loss(algorithm, batch, low=config.clip_low, high=config.clip_high, longest=LONGEST, beta=beta)
        loss.backward()  # type: ignore[no-untyped-call]
        assert new_M.grad is not None
        return loss.detach(), new_M.grad

    def peer(self, algorithm: str, *, beta: float = 0.0) -> tuple[Tensor, Tensor]:
        """The loss of TRL's trainer, called on what it needs of itself and on padded rows."""
        config = Reinforcement.Config.parse({"algorithm": algorithm})
        new_M = self.new_M.clone().requires_grad_()
        mask_ST = torch.nn.utils.rnn.pad_sequence([torch.ones(length) for length in self.lengths], batch_first=True)

        def padded(values_M: Tensor) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(list(values_M.split(self.lengths)), batch_first=True)

        itself = SimpleNamespace(
            loss_type={"gspo": "grpo", "grpo_token": "dapo"}.get(algorithm, algorithm), beta=beta, epsilon_low=config.clip_low,
            epsilon_high=1 + config.clip_high if algorithm == "cispo" else config.clip_high, max_completion_length=LONGEST,
            importance_sampling_level=config.ratio, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
            aux_loss_enabled=False, _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1, model=SimpleNamespace(training=True),
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
            accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, gather_for_metrics=lambda x: x),
            _metrics={"train": defaultdict(list)},
            _get_per_token_logps_and_entropies=lambda *_args, **_more: (padded(new_M), torch.zeros_like(mask_ST), None),
        )  # fmt: skip
        ids = torch.zeros(mask_ST.shape, dtype=torch.long)
        given = {
            "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask_ST,
            "advantages": self.advantages_S, "old_per_token_logps": padded(self.old_M), "ref_per_token_logps": padded(self.reference_M),
            "num_items_in_batch": mask_ST.sum(),
        }  # fmt: skip
        from trl import GRPOTrainer  # seconds to import, which the other processes of a run need not spend

        loss = GRPOTrainer._compute_loss(itself, None, given)
        loss.backward()
        assert new_M.grad is not None
        return loss.detach(), new_M.grad


def close(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], tolerance: float = 1e-7) -> None:
    """Within the rounding of weights in float32."""
    assert torch.allclose(one[0], other[0], rtol=tolerance, atol=0), (one[0], other[0])
    assert torch.allclose(one[1], other[1], rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("algorithm", PRESETS)
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_are_those_of_the_papers_equations(algorithm: str, seed: int) -> None:
    beta = 0.0 if algorithm in {"dr_grpo", "gspo", "cispo"} else 0.1
    close(Drawn(seed).ours(algorithm, beta=beta), Drawn(seed).plain(algorithm, beta=beta))


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "grpo_token", "dr_grpo", "gspo", "cispo"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_loss_and_gradient_are_trls(algorithm: str, beta: float) -> None:
    close(Drawn(7).ours(algorithm, beta=beta), Drawn(7).peer(algorithm, beta=beta), 1e-6)


@pytest.mark.parametrize("algorithm", PRESETS)
def test_the_sum_over_passes_is_the_loss_of_the_whole(algorithm: str) -> None:
    close(Drawn(2).ours(algorithm, beta=0.1), Drawn(2).ours(algorithm, beta=0.1, parts=2))


@pytest.mark.parametrize("algorithm", PRESETS)
def test_without_an_advantage_there_is_no_gradient(algorithm: str) -> None:
    drawn = Drawn(3)
    drawn.advantages_S = torch.zeros_like(drawn.advantages_S)
    loss, slope_M = drawn.ours(algorithm)
    assert float(loss) == 0.0 and not slope_M.any()


@pytest.mark.parametrize("kind", sorted({preset["advantage"] for preset in PRESETS.values()}))
@given(REWARDS)
@settings(deadline=None, max_examples=50)
def test_advantages_are_the_papers_and_do_not_depend_on_the_order(kind: Any, rewards: list[list[float]]) -> None:
    found = advantages_of(rewards, kind)
    for ours, plain in zip(found, plain_policy.advantages(kind, rewards, EPSILON), strict=True):
        assert ours == pytest.approx(plain, abs=1e-9)
    turned = advantages_of([group[::-1] for group in rewards[::-1]], kind)
    for ours, back in zip(found, turned[::-1], strict=True):
        assert ours == pytest.approx(back[::-1], abs=1e-9)


@pytest.mark.parametrize("kind", sorted({preset["advantage"] for preset in PRESETS.values()}))
def test_what_has_no_reward_has_no_advantage_and_equal_rewards_give_none(kind: Any) -> None:
    assert advantages_of([[1.0, 1.0], [1.0, 1.0, 1.0]], kind) == [[0.0, 0.0], [0.0, 0.0, 0.0]]
    with_hole, without = advantages_of([[1.0, None, 0.0], [0.0, 1.0]], kind), advantages_of([[1.0, 0.0], [0.0, 1.0]], kind)
    assert with_hole[0][1] is None and [with_hole[0][0], with_hole[0][2]] == pytest.approx(without[0])
    assert advantages_of([[None, None], [1.0, 0.0]], kind)[0] == [None, None] and advantages_of([], kind) == []


def test_a_sequences_mean_stands_at_each_of_its_tokens() -> None:
    assert sequence_means(torch.tensor([1.0, 3.0, 5.0]), [2, 1]).tolist() == [2.0, 2.0, 5.0]


@pytest.mark.parametrize(("kind", "slope"), [("k1", 1.0), ("k2", None), ("k3", None)])
def test_estimates_of_the_divergence_agree_near_it_and_differ_as_they_should(kind: Any, slope: float | None) -> None:
    new_M, reference_M = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True), torch.tensor([-1.1, -1.7], dtype=torch.float64)
    value_M = kl_estimate(new_M, reference_M, kind)
    (slope_M,) = torch.autograd.grad(value_M.sum(), new_M)
    difference_M = new_M.detach() - reference_M
    expected = {"k1": difference_M, "k2": difference_M**2 / 2, "k3": (-difference_M).exp() + difference_M - 1}[kind]
    assert torch.allclose(value_M, expected)
    assert torch.allclose(slope_M, torch.ones(2, dtype=torch.float64) if slope else {"k2": difference_M, "k3": 1 - (-difference_M).exp()}[kind])


def test_an_algorithm_decides_its_parts_and_each_can_be_set_by_itself() -> None:
    for name, parts in PRESETS.items():
        config = Reinforcement.Config.parse({"algorithm": name})
        assert {part: getattr(config, part) for part in parts} == parts
        assert Reinforcement.Config.parse(config.resolved()) == config
    changed = Reinforcement.Config.parse({"algorithm": "dapo", "clip_high": 0.5, "refill_rounds": 0})
    assert (changed.clip_high, changed.refill_rounds, changed.loss_mean) == (0.5, 0, "token")
    assert Reinforcement.Config().resolved() == Reinforcement.Config.parse({"algorithm": "grpo_token"}).resolved()


@pytest.mark.parametrize("values", [{"algorithm": "ppo"}, {"algorithm": 3}, {"advantage": "none"}, {"final_temperature": 0}, {"refill_rounds": -1}])
def test_what_is_no_variant_is_refused_at_its_field(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        Reinforcement.Config.parse(values, prefix="phase_config")
    assert refused.value.field == f"phase_config.{next(iter(values))}"
