"""The update of a step: rollouts that teach something, in minibatches, as losses that the training frame sums up.

Letters: N tokens of all sequences, M sampled ones among them, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_core.data.batches import PackedBatch, pack_batch, passes_of_rank
from model_core.grpo.loss import kl_estimate, policy_loss, token_values
from model_core.grpo.rollouts import Group, Rollout
from model_core.training.world import World


@dataclass(frozen=True)
class Lesson:
    """One rollout with its prompt, as the update needs it."""

    prompt: list[int]
    rollout: Rollout

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.rollout.tokens)


@dataclass(frozen=True)
class Objective:
    """The constants of the loss."""

    clip_low: float
    clip_high: float
    kl_coef: float
    temperature: float


def lessons(groups: Sequence[Group]) -> list[Lesson]:
    """The rollouts to learn from: those with an advantage, of groups whose rewards differ."""
    return [
        Lesson(group.prompt_tokens, rollout)
        for group in groups if not group.is_flat
        for rollout in group.rollouts if rollout.advantage is not None and rollout.tokens
    ]


def minibatches(items: Sequence[Lesson], *, num: int, seed: int) -> list[list[Lesson]]:
    """`items` shuffled and cut into at most `num` parts of like size."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(items), generator=generator).tolist()
    parts = [[items[i] for i in order[part::num]] for part in range(num)]
    return [part for part in parts if part]


class MinibatchLosses:
    """The loss of one minibatch as one callable a forward pass, and what they saw on this rank."""

    def __init__(
        self, items: Sequence[Lesson], objective: Objective, *, max_tokens: int, world: World,
        reference: nn.Module | None = None,
    ) -> None:
        self._items, self._objective, self._world = items, objective, world
        self._reference = reference
        self.num_tokens = sum(len(item.rollout.tokens) for item in items)
        self.sums: Counter[str] = Counter()
        self.max_difference = 0.0
        lengths = [item.length for item in items]
        passes = passes_of_rank(lengths, max_tokens=max_tokens, rank=world.rank, size=world.size)
        self.callables: list[Callable[[nn.Module], Tensor]] = [
            self._callable([items[i] for i in indices], weight=float(counts)) for indices, counts in passes
        ]

    def _callable(self, chosen: list[Lesson], *, weight: float) -> Callable[[nn.Module], Tensor]:
        def loss(model: nn.Module) -> Tensor:
            return self._loss(model, chosen, weight)

        return loss

    def _loss(self, model: nn.Module, chosen: list[Lesson], weight: float) -> Tensor:
        device, objective = self._world.device, self._objective
        batch = pack_batch([(c.prompt, c.rollout.tokens) for c in chosen], device=device)
        old_M = torch.tensor([v for c in chosen for v in c.rollout.logprobs], device=device)
        advantages_M = torch.tensor([c.rollout.advantage for c in chosen for _token in c.rollout.tokens], device=device)
        mask_1N = torch.full(batch.tokens_1N.shape, weight, device=device)
        logits_MV = model(batch.tokens_1N, attention_mask=mask_1N, packing=batch.packing, at_M=batch.at_M)
        values = token_values(logits_MV, batch.targets_M, temperature=objective.temperature)
        total, sums = policy_loss(values.logprobs_M, old_M, advantages_M,
                                  clip_low=objective.clip_low, clip_high=objective.clip_high)
        total = weight * total
        self._watch("pg_loss", total)
        for name, value in sums.items():
            self._watch(name, weight * value)
        self._watch("entropy", weight * values.entropy_M.sum())
        self._compare(values.logprobs_M, old_M, weight)
        if objective.kl_coef and self._reference is not None:
            reference_M = reference_logprobs(self._reference, batch, temperature=objective.temperature)
            kl = weight * kl_estimate(values.logprobs_M, reference_M).sum()
            self._watch("kl", kl)
            total = total + objective.kl_coef * kl
        return total / self.num_tokens

    def _watch(self, name: str, value: Tensor) -> None:
        self.sums[name] += float(value.detach())  # type: ignore[assignment]

    @torch.no_grad()
    def _compare(self, logprobs_M: Tensor, old_M: Tensor, weight: float) -> None:
        difference_M = weight * (logprobs_M - old_M).abs()
        self._watch("difference", difference_M.sum())
        self.max_difference = max(self.max_difference, float(difference_M.max()))


@torch.no_grad()
def reference_logprobs(reference: nn.Module, batch: PackedBatch, *, temperature: float) -> Tensor:
    """What the frozen model gives the batch's targets, M."""
    logits_MV = reference(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M)
    return token_values(logits_MV, batch.targets_M, temperature=temperature).logprobs_M
