"""What of a run's budget is used, whether it is used up, and whether it will be before the last step.

Pure sums: `frame` asks at every step boundary, and writes the checkpoint and measures when the answer is a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.config.run import BudgetConfig

WORDS = {
    "device_seconds": "{used:.0f} of {limit:.0f} device seconds are used",
    "wall_seconds": "{used:.0f} of {limit:.0f} seconds are used",
    "dollars": "{used:.2f} of {limit:.2f} dollars are used",
    "tokens": "{used:.0f} of {limit:.0f} tokens are used",
}
"""The units of a budget, in the order in which they are looked at, and what is said when one is used up."""


@dataclass(frozen=True)
class Spent:
    """What a run, over all its attempts, has used."""

    device_seconds: float
    num_processes: int
    tokens: int


def used_up(budget: BudgetConfig, spent: Spent) -> str:
    """The sentence that says which limit is reached; empty when none is."""
    for unit, (used, limit) in _limited(budget, spent).items():
        if used >= limit:
            return WORDS[unit].format(used=used, limit=limit)
    return ""


def burn(budget: BudgetConfig, *, at_first: Spent, now: Spent, num_done: int, num_left: int) -> dict[str, float]:
    """`budget/used_fraction`, and `budget/forecast_fraction`: what it will be after the last step at the rate of the steps
    since `at_first`. Above 1 the budget ends the run first. Empty without a limit. Of several limits the one nearest to its end
    counts, and each is told besides: `budget/<unit>/used` and `budget/<unit>/forecast`."""
    assert num_done > 0
    before, used = _fractions(budget, at_first), _fractions(budget, now)
    if not used:
        return {}
    ends = {unit: fraction + (fraction - before[unit]) / num_done * num_left for unit, fraction in used.items()}
    apart = {} if len(used) == 1 else {
        f"budget/{unit}/{name}": fractions[unit] for unit in used for name, fractions in (("used", used), ("forecast", ends))
    }
    return {"budget/used_fraction": max(used.values()), "budget/forecast_fraction": max(ends.values()), **apart}


def fraction_left(budget: BudgetConfig, spent: Spent) -> float | None:
    """What is left of the limit that is nearest to its end; None without a limit."""
    used = _fractions(budget, spent)
    return max(0.0, 1.0 - max(used.values())) if used else None


def _fractions(budget: BudgetConfig, spent: Spent) -> dict[str, float]:
    return {unit: used / limit for unit, (used, limit) in _limited(budget, spent).items()}


def _limited(budget: BudgetConfig, spent: Spent) -> dict[str, tuple[float, float]]:
    """What is used and what may be, of each unit that has a limit."""
    used = {
        "device_seconds": spent.device_seconds, "wall_seconds": spent.device_seconds / spent.num_processes,
        "dollars": spent.device_seconds * (budget.dollars_per_device_hour or 0.0) / 3600, "tokens": float(spent.tokens),
    }
    limits = {unit: getattr(budget, unit) for unit in WORDS}
    return {unit: (used[unit], float(limit)) for unit, limit in limits.items() if limit}
