"""The update of a step: rollouts that teach something, in minibatches, as losses that the training frame sums up.

Letters: B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_core.data.batches import make_batch, passes_of_rank
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
        self, items: Sequence[Lesson], objective: Objective, *, pad: int, max_tokens: int, world: World,
        reference: nn.Module | None = None,
    ) -> None:
        self._items, self._objective, self._pad, self._world = items, objective, pad, world
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
        batch = make_batch([(c.prompt, c.rollout.tokens) for c in chosen], pad=self._pad, device=device)
        mask_BT = batch.mask_BT * weight
        old_BT = scattered([c.rollout.logprobs for c in chosen], batch.mask_BT)
        advantages_B = torch.tensor([c.rollout.advantage for c in chosen], device=device)
        logits_BTV = model(batch.tokens_BT, attention_mask=batch.real_BT * weight)
        values = token_values(logits_BTV, batch.targets_BT, temperature=objective.temperature)
        total, sums = policy_loss(values.logprobs_BT, old_BT, advantages_B, mask_BT,
                                  clip_low=objective.clip_low, clip_high=objective.clip_high)
        self._watch("pg_loss", total)
        for name, value in sums.items():
            self._watch(name, value)
        self._watch("entropy", (values.entropy_BT * mask_BT).sum())
        self._compare(values.logprobs_BT, old_BT, mask_BT)
        if objective.kl_coef and self._reference is not None:
            with torch.no_grad():
                reference = token_values(self._reference(batch.tokens_BT),
                                         batch.targets_BT, temperature=objective.temperature)
            kl = (kl_estimate(values.logprobs_BT, reference.logprobs_BT) * mask_BT).sum()
            self._watch("kl", kl)
            total = total + objective.kl_coef * kl
        return total / self.num_tokens

    def _watch(self, name: str, value: Tensor) -> None:
        self.sums[name] += float(value.detach())  # type: ignore[assignment]

    @torch.no_grad()
    def _compare(self, logprobs_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> None:
        difference_BT = (logprobs_BT - old_BT).abs() * mask_BT
        self._watch("difference", difference_BT.sum())
        self.max_difference = max(self.max_difference, float(difference_BT.max()))


def scattered(rows: Sequence[list[float]], mask_BT: Tensor) -> Tensor:
    """`rows` written where the mask is 1, row by row."""
    scattered_BT = torch.zeros_like(mask_BT)
    scattered_BT[mask_BT.bool()] = torch.tensor([v for row in rows for v in row], device=mask_BT.device)
    return scattered_BT
