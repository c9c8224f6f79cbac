"""Which prompts a step of reinforcement asks: all in turn, or a curriculum that moves with the pass rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from model_core.data.order import indices_of_step
from model_core.grpo.rollouts import Group


class Prompts(Protocol):
    """Chooses prompts by index. `state` is JSON, and `load` goes on from it; a resumed run chooses the same."""

    def choose(self, step: int, num: int) -> list[int]:
        """Indices of `num` prompts for a step; fewer are the beginning of more."""

    def update(self, indices: Sequence[int], pass_rates: Sequence[float | None]) -> None:
        """Learns how the prompts went; None where nothing could be told."""

    def state(self) -> dict[str, Any]:
        """What `load` needs."""

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state`."""


class InTurn:
    """Every prompt once in each pass, each pass in an order of its own. What a step asks beyond its own is of another order."""

    def __init__(self, num_prompts: int, *, per_step: int, seed: int) -> None:
        self._num, self._per_step, self._seed = num_prompts, per_step, seed

    def choose(self, step: int, num: int) -> list[int]:
        """The prompts of the step, then as many others as `num` asks for."""
        chosen: list[int] = []
        while len(chosen) < num:
            seed = self._seed + 500_009 * (len(chosen) // self._per_step)
            chosen += indices_of_step(step, num_examples=self._num, batch_size=self._per_step, seed=seed)
        return chosen[:num]

    def update(self, indices: Sequence[int], pass_rates: Sequence[float | None]) -> None:
        """Changes nothing."""

    def state(self) -> dict[str, Any]:
        """Nothing: the step decides."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing to go on from."""


def pass_rate(group: Group) -> float | None:
    """Share of right answers among those that could be judged."""
    judged = [rollout.scored.correct for rollout in group.rollouts if rollout.scored.correct is not None]
    return sum(judged) / len(judged) if judged else None
