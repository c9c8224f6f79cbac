"""The update of a step: rollouts that teach something, in minibatches, as losses that the training frame sums up.

Letters: N tokens of all sequences, M sampled ones among them, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from model_core.config.variants import Mean
from model_core.data.batches import PackedBatch, pack_answers, passes_of_rank
from model_core.grpo.loss import kl_estimate, mean_weights, policy_loss, token_values, truncated_weights
from model_core.grpo.rollouts import Group, Rollout
from model_core.training.world import World


@dataclass(frozen=True)
class Lesson:
    """One rollout with its prompt, as the update needs it."""

    prompt: list[int]
    rollout: Rollout
    trainer_logprobs: list[float] | None = None
    """What the trainer gives the tokens before the first update, where it was asked."""

    @property
    def old_logprobs(self) -> list[float]:
        """The log-probabilities that ratios are taken to."""
        return self.rollout.logprobs if self.trainer_logprobs is None else self.trainer_logprobs

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.rollout.tokens)


@dataclass(frozen=True)
class Objective:
    """The constants of the loss; what they mean is told in `Reinforcement.Config`."""

    clip_low: float
    clip_high: float
    kl_coef: float
    temperature: float
    ratio: Literal["token", "sequence"] = "token"
    surrogate: Literal["clip", "cispo"] = "clip"
    loss_mean: Mean = "token"
    longest: int = 1
    """What "constant" divides every sequence by, in tokens."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    importance_cap: float = 0.0


def lessons(groups: Sequence[Group], *, with_flat: bool = False) -> list[Lesson]:
    """The rollouts to learn from: those with an advantage, of groups whose rewards differ.

    A group of equal rewards teaches too, `with_flat`, where advantages compare it with other groups.
    """
    return [
        Lesson(group.prompt_tokens, rollout)
        for group in groups if with_flat or not group.is_flat
        for rollout in group.rollouts if rollout.advantage is not None and rollout.tokens
    ]


def minibatches(items: Sequence[Lesson], *, num: int, seed: int) -> list[list[Lesson]]:
    """`items` shuffled and cut into at most `num` parts of like size."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(items), generator=generator).tolist()
    parts = [[items[i] for i in order[part::num]] for part in range(num)]
    return [part for part in parts if part]


def _passes(items: Sequence[Lesson], *, max_tokens: int, world: World) -> list[tuple[list[int], bool]]:
    """This rank's passes, in which the answers to one prompt stand beside each other."""
    numbers: dict[tuple[int, ...], int] = {}
    groups = [numbers.setdefault(tuple(item.prompt), len(numbers)) for item in items]
    lengths = [item.length for item in items]
    return passes_of_rank(lengths, max_tokens=max_tokens, rank=world.rank, size=world.size, groups=groups)


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
        self.max_difference, self.min_ratio, self.max_ratio = 0.0, inf, 0.0
        self.callables: list[Callable[[nn.Module], Tensor]] = [
            self._callable([items[i] for i in indices], weight=float(counts))
            for indices, counts in _passes(items, max_tokens=max_tokens, world=world)
        ]

    def _callable(self, chosen: list[Lesson], *, weight: float) -> Callable[[nn.Module], Tensor]:
        def loss(model: nn.Module) -> Tensor:
            return self._loss(model, chosen, weight)

        return loss

    def _loss(self, model: nn.Module, chosen: list[Lesson], weight: float) -> Tensor:
        device, objective = self._world.device, self._objective
        batch = pack_answers([(c.prompt, c.rollout.tokens) for c in chosen], device=device)
        rollout_M = torch.tensor([v for c in chosen for v in c.rollout.logprobs], device=device)
        old_M = torch.tensor([v for c in chosen for v in c.old_logprobs], device=device)
        advantages_M = torch.tensor([c.rollout.advantage for c in chosen for _token in c.rollout.tokens], device=device)
        mask_1N = torch.full(batch.tokens_1N.shape, weight, device=device)
        logits_MV = model(batch.tokens_1N, attention_mask=mask_1N, packing=batch.packing, at_M=batch.at_M)
        values = token_values(logits_MV, batch.targets_M, temperature=objective.temperature)
        lengths_S = [len(c.rollout.tokens) for c in chosen]
        weights_M = mean_weights(lengths_S, objective.loss_mean, num_tokens=self.num_tokens, num_sequences=len(self._items),
                                 longest=objective.longest)
        weights_M = None if weights_M is None else weights_M.to(values.logprobs_M)
        corrected_M = weights_M
        if objective.importance_cap:
            correction_M = truncated_weights(old_M, rollout_M, cap=objective.importance_cap)
            corrected_M = correction_M if weights_M is None else weights_M * correction_M
        total, sums = policy_loss(
            values.logprobs_M, old_M, advantages_M, clip_low=objective.clip_low, clip_high=objective.clip_high,
            surrogate=objective.surrogate, lengths_S=lengths_S if objective.ratio == "sequence" else None, weights_M=corrected_M,
        )
        total = weight * total
        self._watch("pg_loss", total)
        for name, value in sums.items():
            self._watch(name, weight * value)
        self._watch("entropy", weight * values.entropy_M.sum())
        self._compare(values.logprobs_M, rollout_M, weight)
        if objective.kl_coef and self._reference is not None:
            reference_M = reference_logprobs(self._reference, batch, temperature=objective.temperature)
            kl_M = kl_estimate(values.logprobs_M, reference_M, objective.kl_estimator)
            self._watch("kl", weight * kl_M.sum())
            total = total + objective.kl_coef * weight * (kl_M if weights_M is None else kl_M * weights_M).sum()
        return total / self.num_tokens

    def _watch(self, name: str, value: Tensor) -> None:
        self.sums[name] += float(value.detach())  # type: ignore[assignment]

    @torch.no_grad()
    def _compare(self, logprobs_M: Tensor, rollout_M: Tensor, weight: float) -> None:
        if not weight:
            return
        difference_M = logprobs_M - rollout_M
        ratios_M = difference_M.exp()
        self._watch("difference", difference_M.abs().sum())
        self._watch("ratio", ratios_M.sum())
        self.max_difference = max(self.max_difference, float(difference_M.abs().max()))
        self.min_ratio, self.max_ratio = min(self.min_ratio, float(ratios_M.min())), max(self.max_ratio, float(ratios_M.max()))


def with_trainer_logprobs(
    items: Sequence[Lesson], model: nn.Module, *, temperature: float, max_tokens: int, world: World
) -> list[Lesson]:
    """The lessons with what the trainer gives their tokens, each rank its share; all ranks get all."""
    found: dict[int, list[float]] = {}
    for indices, counts in _passes(items, max_tokens=max_tokens, world=world):
        if counts:
            chosen = [items[i] for i in indices]
            batch = pack_answers([(c.prompt, c.rollout.tokens) for c in chosen], device=world.device)
            values = iter(reference_logprobs(model, batch, temperature=temperature).tolist())
            found |= {i: list(islice(values, len(c.rollout.tokens))) for i, c in zip(indices, chosen, strict=True)}
    everything = {i: values for part in world.gather(found) for i, values in part.items()}
    return [replace(item, trainer_logprobs=everything[i]) for i, item in enumerate(items)]


@torch.no_grad()
def reference_logprobs(reference: nn.Module, batch: PackedBatch, *, temperature: float) -> Tensor:
    """What the frozen model gives the batch's targets, M."""
    logits_MV = reference(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M)
    return token_values(logits_MV, batch.targets_M, temperature=temperature).logprobs_M
