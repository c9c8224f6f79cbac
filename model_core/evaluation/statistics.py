"""Intervals and estimators that gates and benchmarks use; no torch, so that the web process can use them too."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

Z95 = 1.959963984540054


def wilson(num_correct: float, n: float) -> tuple[float, float]:
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


def mean_interval(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, its standard error and its 95 % interval, of one value a problem.

    Values that are all 0 or 1 have Wilson's interval, which does not collapse when all are equal; others the normal one of
    their mean (central limit). What cannot be known is nan: all four of no value, all but the mean of a single one.
    """
    mean, error = clustered_mean([[value] for value in values])
    if values and all(value in {0.0, 1.0} for value in values):
        return (mean, error, *wilson(math.fsum(values), len(values)))
    return mean, error, mean - Z95 * error, mean + Z95 * error


def measured(values: Sequence[float]) -> dict[str, float | int | None]:
    """What is told of a metric with one value a problem: value, stderr, low, high and num; None is what cannot be known."""
    told = [None if math.isnan(number) else number for number in mean_interval(values)]
    return {**dict(zip(("value", "stderr", "low", "high"), told, strict=True)), "num": len(values)}


def clustered_mean(clusters: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean of the clusters' means and its standard error; the samples of one problem are one cluster.

    No cluster gives (nan, nan), one has no standard error (nan). An empty cluster is refused by an assert.
    Source: Miller (arXiv 2411.00640), section 2.2; every problem weighs the same, however many samples it has.
    """
    assert all(clusters)
    means, n = [math.fsum(values) / len(values) for values in clusters], len(clusters)
    if n == 0:
        return math.nan, math.nan
    mean = math.fsum(means) / n
    return mean, math.sqrt(math.fsum((one - mean) ** 2 for one in means) / (n - 1) / n) if n > 1 else math.nan


def clustered_interval(clusters: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of `clustered_mean` of values from 0 to 1: Wilson's at the effective number of samples.

    That number is the one at which independent samples would have the same standard error, at least the number of
    problems and at most that of samples; with one sample a problem it is exactly `wilson`.
    Source: Korn and Graubard (1998) for proportions in clusters.
    """
    mean, error = clustered_mean(clusters)
    n, num_samples = len(clusters), sum(map(len, clusters))
    if n == 0:
        return 0.0, 1.0
    spread = error * error * (n - 1) if n > 1 else 0.0
    effective = min(num_samples, max(n, mean * (1 - mean) / spread)) if spread > 0 else num_samples if 0 < mean < 1 else n
    return wilson(mean * effective, effective)


def majority(answers: Sequence[str], same: Callable[[str, str], bool]) -> str | None:
    """The first answer of the largest class of equal ones; of classes as large, the one that came first. None: no answer."""
    firsts: list[str] = []
    sizes: list[int] = []
    for answer in answers:
        place = next((number for number, first in enumerate(firsts) if same(first, answer)), len(firsts))
        if place == len(firsts):
            firsts.append(answer)
            sizes.append(0)
        sizes[place] += 1
    return firsts[sizes.index(max(sizes))] if firsts else None


def pass_at_k(n: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, from n samples of which `num_correct` were.

    Source: Chen et al. (arXiv 2107.03374), equation 1: 1 − C(n−c, k) / C(n, k).
    """
    assert 0 <= num_correct <= n and 1 <= k <= n
    return 1.0 - math.comb(n - num_correct, k) / math.comb(n, k)
