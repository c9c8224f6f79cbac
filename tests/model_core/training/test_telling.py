"""The log of a run tells of the run: what a person would ask for, and not every step."""

from __future__ import annotations

import pytest

from model_core.events import KINDS
from model_core.training import telling
from model_core.training.telling import Teller

SCALARS = {"step": 3, "tokens": 9, "process_seconds": 1.0, "values": {"loss": 0.5, "perf/step_s": 0.1, "perf/tok_s": 7140.4}}


def told(*events: tuple[str, dict]) -> list[str]:
    lines: list[str] = []
    teller = Teller(lines.append)
    for kind, payload in events:
        teller.tell(kind, payload)
    return lines


def test_a_step_is_told_with_what_it_learnt_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = ("progress", {"stage": "updating", "step": 2, "total": 300, "fraction": 0.0, "remaining_seconds": None})
    assert told(progress, ("scalars", SCALARS)) == ["step 3 of 300: loss 0.5000, tokens/s 7,140"]
    assert len(told(*[("scalars", SCALARS)] * 50)) == 1, "steps in quick succession are one line"
    monkeypatch.setattr(telling, "STEP_SECONDS", 0.0)
    assert len(told(*[("scalars", SCALARS)] * 50)) == 50


def test_a_value_that_is_no_number_is_left_out() -> None:
    values = {"loss": "nan", "perf/step_s": 0.1, "reward/total": 0.25}
    assert told(("scalars", {**SCALARS, "values": values})) == ["step 3: reward 0.250"]


def test_what_is_for_programs_is_not_told() -> None:
    assert told(("rollouts", {"step": 1}), ("experts", {"step": 1}), ("checkpoint_removed", {"step": 1})) == []


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        ("error", {"type": "DataError", "message": "No rows."}, "error: DataError: No rows."),
        ("warning", {"message": "Slow."}, "warning: Slow."),
        ("stopping", {"step": 7, "reason": "Asked to pause."}, "stopping at step 7: Asked to pause."),
        (
            "evaluation", {"when": "before", "accuracy": 0.5, "num_problems": 8, "quality": None},
            "held-out problems, before: accuracy 0.500 of 8, quality unknown",
        ),
    ],
)  # fmt: skip
def test_what_happened_is_a_sentence(kind: str, payload: dict, words: str) -> None:
    assert kind in KINDS and told((kind, payload)) == [words]
