"""Which sampled completions become demonstrations, and why the others do not.

A completion is refused for the first of `REASONS` that applies. Of those left, duplicates go, and the best of each prompt
stay. Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.3: only right answers, no mixed languages, no long paragraphs, no
code blocks. Ours also recomputes every equation, and looks at scripts instead of languages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from model_core.data.dataset import Row
from model_core.grpo.rollouts import Group, Rollout
from model_core.rewards._equations import equations
from model_core.rewards._scripts import foreign_fraction
from model_core.rewards._types import Sample
from model_core.tasks import TASKS

if TYPE_CHECKING:
    from model_core.phases.rejection_sampling import RejectionSampling

REASONS = (
    "unscored", "wrong answer", "cut off", "no closed reasoning", "false equation", "reward too low", "code block",
    "long paragraph", "mixed scripts", "duplicate", "not the best of its prompt",
)  # fmt: skip
"""Why a completion is not kept, in the order of asking."""
MIXED_FRACTION = 0.1
"""Share of letters of other scripts than the commonest from which on a text counts as mixed; a few symbols are none."""


def keep(group: Group, settings: RejectionSampling.Config) -> tuple[list[Rollout], Counter[str]]:
    """The completions of one prompt that are kept, best first, and how many were refused for which reason."""
    refused: Counter[str] = Counter()
    good: dict[str, Rollout] = {}
    for rollout in group.rollouts:
        why = why_refused(group.row, rollout, settings) or ("duplicate" if rollout.text in good else None)
        if why:
            refused[why] += 1
        else:
            good[rollout.text] = rollout
    ordered = sorted(good.values(), key=lambda rollout: _rank(rollout, settings))
    kept = ordered[: settings.max_chains_per_prompt]
    refused["not the best of its prompt"] += len(ordered) - len(kept)
    return kept, +refused


def why_refused(row: Row, rollout: Rollout, settings: RejectionSampling.Config) -> str | None:
    """The first of `REASONS` that the completion by itself gives; None when it is a good one."""
    return next(_objections(row, rollout, settings), None)


def _objections(row: Row, rollout: Rollout, settings: RejectionSampling.Config) -> Iterator[str]:
    reasoning = Sample(row.prompt, rollout.text, row.answer, row.task, len(rollout.tokens), rollout.finish_reason).reasoning
    if rollout.scored.correct is None:
        yield "unscored"
    if not rollout.scored.correct:
        yield "wrong answer"
    if rollout.finish_reason != "stop":
        yield "cut off"
    if not reasoning.strip() or rollout.text.count("</think>") != 1:
        yield "no closed reasoning"
    if not _holds(row, reasoning):
        yield "false equation"
    if settings.min_reward is not None and (rollout.scored.total is None or rollout.scored.total < settings.min_reward):
        yield "reward too low"
    if settings.refuse_code_blocks and "```" in reasoning:
        yield "code block"
    if settings.max_paragraph_chars and max(map(len, reasoning.splitlines()), default=0) > settings.max_paragraph_chars:
        yield "long paragraph"
    if settings.refuse_mixed_scripts and foreign_fraction(reasoning) > MIXED_FRACTION:
        yield "mixed scripts"


def _rank(rollout: Rollout, settings: RejectionSampling.Config) -> tuple[float, int]:
    reward = -(rollout.scored.total or 0.0) if settings.prefer == "best_reward" else 0.0
    return reward, len(rollout.tokens)


def _holds(row: Row, reasoning: str) -> bool:
    if row.task:
        _right, wrong = TASKS.get(row.task)().check_steps(row.prompt, reasoning)
        return bool(wrong == 0)
    return all(equation.holds for equation in equations(reasoning))
