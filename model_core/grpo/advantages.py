"""Advantages of group-relative policy optimization.

Letters: G completions of one prompt.
Source: DeepSeekMath (arXiv 2402.03300), equation 3; the deviation is `EPSILON` in the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence

EPSILON = 1e-4


def group_advantages(rewards_G: Sequence[float | None]) -> list[float | None]:
    """(reward − mean) / (standard deviation + ε) within the group; equal rewards give 0 everywhere.

    A completion without a reward has no advantage and does not move the others' mean. The deviation is that of the
    sample (divided by n − 1), as in the paper's code.
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
