"""Pairs of answers that a tiny model can tell apart, and reward models that learn to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from model_core.config import RunPaths
from model_core.reward_model import with_head
from model_core.training.pairs import PairSteps
from model_core.training.reward_models import RewardStart, begin_reward_model, encode_pairs
from tests.model_core.training.in_process import ROWS, Attempt, model_start

PAIRS = [replace(row, completion=None, chosen=row.answer, rejected=row.completion) for row in ROWS]
"""The bare answer is preferred to the one with its reasoning; a new head happens to think the reverse."""
LEARNING: dict[str, Any] = {"steps": 12, "warmup_steps": 1, "batch_size": 6, "adamw_lr": 0.01}


def judge_start(**shape: Any) -> RewardStart:
    """A model of a few thousand parameters with a new head."""
    start = model_start(**shape)
    model, made = with_head(start.model)
    return RewardStart(model, start.tokenizer, made)


class Judging:
    """One attempt of a run of the phase, in this process."""

    def __init__(
        self, attempt: Attempt, name: str = "judge", *, start: RewardStart | None = None, resume_from: Path | None = None,
        phase_config: dict[str, Any] | None = None, **values: Any,
    ) -> None:  # fmt: skip
        begun = start or judge_start()
        if resume_from is not None:
            begun = begin_reward_model(RunPaths(resume_from=str(resume_from)), seed=0)
        given: Any = begun
        self.run = attempt(name, start=given, phase="reward_model", rows=PAIRS, resume_from=resume_from,
                           phase_config={**LEARNING, **(phase_config or {})}, **values)
        self.steps = PairSteps(self.run.frame, self.run.settings, begun, encode_pairs(begun, PAIRS))

    def train(self) -> dict[str, Any]:
        """Steps to the end."""
        return self.run.frame.run(self.steps, measure=self.steps.measure)
