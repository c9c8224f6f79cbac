"""Intervals and estimators that gates and benchmarks use; no torch, so that the web process can use them too."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Z95 = 1.959963984540054


def wilson(num_correct: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    Source: Wilson (1927); unlike the normal interval it stays within 0 and 1 and does not collapse at either end.
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = num_correct / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if num_correct == 0 else low), (1.0 if num_correct == n else high)


def bootstrap_mean(values: Sequence[float], seed: int, *, num_resamples: int = 1000) -> tuple[float, float, float]:
    """Mean and its 95 % percentile-bootstrap interval; the same seed gives the same interval.

    Source: Efron (1979). No values give (nan, nan, nan): nothing was measured.
    """
    if not values:
        return math.nan, math.nan, math.nan
    draw, n = random.Random(seed), len(values)
    means = sorted(math.fsum(draw.choices(values, k=n)) / n for _ in range(num_resamples))
    return math.fsum(values) / n, means[int(0.025 * num_resamples)], means[int(0.975 * num_resamples) - 1]


def pass_at_k(n: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, from n samples of which `num_correct` were.

    Source: Chen et al. (arXiv 2107.03374), equation 1: 1 − C(n−c, k) / C(n, k).
    """
    assert 0 <= num_correct <= n and 1 <= k <= n
    return 1.0 - math.comb(n - num_correct, k) / math.comb(n, k)
