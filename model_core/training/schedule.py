"""The learning rate over a run, as a factor of its peak that depends on the step alone.

A pure function of the step needs no state: resuming at step n goes on exactly where the run was.
"""

from __future__ import annotations


def rate_factor(step: int, *, total: int, warmup: int, constant_fraction: float, final_fraction: float) -> float:
    """Factor of the peak rate in step `step` (the first step is 0).

    Linear from 1/warmup to 1, then constant until `constant_fraction` of `total`, then linear down to
    `final_fraction` in the last step.
    Source: the shape of DeepSeek-V3's schedule (arXiv 2412.19437, section 4.2) with a linear fall for its cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, int(total * constant_fraction))
    if step < start or total - 1 <= start:
        return 1.0
    progress = min(1.0, (step - start) / (total - 1 - start))
    return 1.0 - (1.0 - final_fraction) * progress
