"""What of a run's budget is used, whether it is used up, and whether it will be before the last step.

Pure sums: `frame` asks at every step boundary, and writes the checkpoint and measures when the answer is a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.config.run import BudgetConfig


@dataclass(frozen=True)
class Spent:
    """What a run, over all its attempts, has used."""

    device_seconds: float
    num_processes: int
    tokens: int


def used_up(budget: BudgetConfig, spent: Spent) -> str:
    """The sentence that says which limit is reached; empty when none is."""
    wall = spent.device_seconds / spent.num_processes
    if budget.device_seconds and spent.device_seconds >= budget.device_seconds:
        return f"{spent.device_seconds:.0f} of {budget.device_seconds:.0f} device seconds are used"
    if budget.wall_seconds and wall >= budget.wall_seconds:
        return f"{wall:.0f} of {budget.wall_seconds:.0f} seconds are used"
    if budget.tokens and spent.tokens >= budget.tokens:
        return f"{spent.tokens} of {budget.tokens} tokens are used"
    return ""


def burn(budget: BudgetConfig, *, at_first: Spent, now: Spent, num_done: int, num_left: int) -> dict[str, float]:
    """`budget/used_fraction`, and `budget/forecast_fraction`: what it will be after the last step at the rate of the steps
    since `at_first`. Above 1 the budget ends the run first. Of several limits the one nearest to its end counts; empty
    without a limit."""
    assert num_done > 0
    before, used = _fractions(budget, at_first), _fractions(budget, now)
    if not used:
        return {}
    ends = [fraction + (fraction - before[name]) / num_done * num_left for name, fraction in used.items()]
    return {"budget/used_fraction": max(used.values()), "budget/forecast_fraction": max(ends)}


def _fractions(budget: BudgetConfig, spent: Spent) -> dict[str, float]:
    used = {
        "device_seconds": (spent.device_seconds, budget.device_seconds),
        "wall_seconds": (spent.device_seconds / spent.num_processes, budget.wall_seconds),
        "tokens": (spent.tokens, budget.tokens),
    }
    return {name: amount / limit for name, (amount, limit) in used.items() if limit}
