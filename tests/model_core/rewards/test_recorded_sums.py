"""What the article's reward gave to completions of a real reinforcement run on sums, recorded: it gives the same today.

Gates and measured qualities stand on these numbers; who moves one of them moves all thresholds that were found with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_core.config import RewardConfig
from model_core.rewards._types import Sample
from model_core.scoring import Rubric
from model_core.tasks.sums import column_steps

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "recorded_sums.jsonl").read_text().splitlines()]


def article(prompt: str, completion: str, expected: str, num_tokens: int, finish_reason: str = "stop") -> Any:
    return Rubric(RewardConfig()).score([Sample(prompt, completion, expected, "sums", num_tokens, finish_reason)])[0]


@pytest.mark.parametrize("one", RECORDED, ids=range(len(RECORDED)))
def test_a_recorded_completion_is_worth_what_it_was(one: dict[str, Any]) -> None:
    found = article(one["prompt"], one["completion"], one["answer"], one["num_tokens"], one["finish_reason"])
    assert found.components == pytest.approx(one["components"], abs=1e-9)
    assert found.total == pytest.approx(one["total"], abs=1e-9) and found.correct == one["correct"]


@pytest.mark.parametrize(("x", "y"), [(473, 582), (999, 999), (100, 200), (7, 5)])
def test_demonstrations_are_flawless_stepwise_and_lose_their_steps_when_terse(x: int, y: int) -> None:
    stepwise = article(f"{x}+{y}=", f"<think>{column_steps(x, y)}</think>{x + y}", str(x + y), 25)
    terse = article(f"{x}+{y}=", f"<think>{x}+{y}={x + y}</think>{x + y}", str(x + y), 25)
    steps = min(1.0, len(str(x)) / 3)
    assert stepwise.total == pytest.approx(0.8 + 0.2 * steps) and terse.total == pytest.approx(0.8 + 0.2 / 3)


def test_right_and_wrong_lie_as_far_apart_as_they_did() -> None:
    totals = {right: [one["total"] for one in RECORDED if one["correct"] == right] for right in (True, False)}
    assert min(totals[True]) > 0.6 > sum(totals[False]) / len(totals[False]) and max(totals[False]) < 0.65
