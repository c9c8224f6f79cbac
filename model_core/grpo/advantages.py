"""Advantages: what each completion is worth against the others of its group, or of the whole step.

Letters: Q prompts, G completions of one prompt. `EPSILON` in the denominators is ours, as in the papers' code.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_core.config.variants import Advantage

EPSILON = 1e-4


def advantages_of(rewards_QG: Sequence[Sequence[float | None]], kind: Advantage) -> list[list[float | None]]:
    """The advantage of every completion of a step; one without a reward has none and moves nobody else's.

    Sources: group_std DeepSeekMath, equation 3; group_mean Dr. GRPO (arXiv 2503.20783), section 3.2; leave_one_out RLOO
    (arXiv 2402.14740), equation 9; batch and group_mean_batch_std REINFORCE++ (arXiv 2501.03262), sections 3.2 and 3.3.
    """
    if kind == "group_std":
        return [group_advantages(rewards_G) for rewards_G in rewards_QG]
    if kind == "batch":
        return _scaled(rewards_QG, centre=True)
    centred = [_centred(rewards_G) for rewards_G in rewards_QG]
    if kind == "group_mean":
        return centred
    if kind == "group_mean_batch_std":
        return _scaled(centred, centre=False)
    return [_leave_one_out(advantages_G) for advantages_G in centred]


def group_advantages(rewards_G: Sequence[float | None]) -> list[float | None]:
    """(reward − mean) / (standard deviation + ε) within the group; equal rewards give 0 everywhere.

    A completion without a reward has no advantage and does not move the others' mean. The deviation is that of the
    sample (divided by n − 1), as in the paper's code. Source: DeepSeekMath (arXiv 2402.03300), equation 3.
    """
    scored = [reward for reward in rewards_G if reward is not None]
    if not scored:
        return [None] * len(rewards_G)
    mean = sum(scored) / len(scored)
    deviation = _deviation(scored, mean)
    if deviation <= 1e-9:
        return [None if reward is None else 0.0 for reward in rewards_G]
    return [None if reward is None else (reward - mean) / (deviation + EPSILON) for reward in rewards_G]


def is_flat(rewards_G: Sequence[float | None]) -> bool:
    """Whether the group teaches nothing: all its rewards are equal, or fewer than two are known."""
    scored = [reward for reward in rewards_G if reward is not None]
    return len(scored) < 2 or max(scored) - min(scored) <= 1e-9


def _deviation(values: Sequence[float], mean: float) -> float:
    if len(values) < 2:
        return 0.0
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def _centred(rewards_G: Sequence[float | None]) -> list[float | None]:
    scored = [reward for reward in rewards_G if reward is not None]
    mean = sum(scored) / len(scored) if scored else 0.0
    return [None if reward is None else reward - mean for reward in rewards_G]


def _leave_one_out(centred_G: Sequence[float | None]) -> list[float | None]:
    """r − mean of the others = (r − mean of all) · n / (n − 1); a single one has nobody to be compared with."""
    n = sum(value is not None for value in centred_G)
    return [None if value is None else value * n / (n - 1) if n > 1 else 0.0 for value in centred_G]


def _scaled(values_QG: Sequence[Sequence[float | None]], *, centre: bool) -> list[list[float | None]]:
    known = [value for values_G in values_QG for value in values_G if value is not None]
    mean = sum(known) / len(known) if known and centre else 0.0
    deviation = _deviation(known, sum(known) / len(known)) if known else 0.0
    if deviation <= 1e-9:
        return [[None if value is None else 0.0 for value in values_G] for values_G in values_QG]
    return [[None if value is None else (value - mean) / (deviation + EPSILON) for value in values_G] for values_G in values_QG]
