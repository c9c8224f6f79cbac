"""Which completion rejection sampling keeps."""

from __future__ import annotations

import pytest

from model_core.data.dataset import Row
from model_core.grpo.chains import _row, best_chain
from model_core.grpo.rollouts import Group, Rollout
from model_core.scoring import Scored

RIGHT = "<think>3+2=5;7+8=15;4+5+1=10</think>1055"


def group(*texts: str, task: str = "sums", correct: bool = True, finish: str = "stop") -> Group:
    rollouts = [Rollout(list(range(len(text))), [], finish, text, Scored(1.0, {}, correct, "")) for text in texts]
    return Group(Row("473+582=", answer="1055", task=task), [1], rollouts)


def kept(of: Group) -> str | None:
    best = best_chain(of)
    return best.text if best else None


def test_the_shortest_flawless_one_is_kept() -> None:
    assert kept(group(RIGHT, "<think>473+582=1055</think>1055")) == "<think>473+582=1055</think>1055"


@pytest.mark.parametrize("task", ["sums", ""])
@pytest.mark.parametrize("text", [
    "<think>473+582=917</think>1055", "473+582=917</think>1055", "<think></think>1055", "1055", "</think>1055",
    "<think>473+582=1055</think></think>1055",
])
def test_a_false_equation_or_no_closed_reasoning_is_not_kept(task: str, text: str) -> None:
    assert kept(group(text, task=task)) is None
    assert kept(group(text, RIGHT, task=task)) == RIGHT


def test_a_missing_opening_mark_is_judged_alike_and_written_into_the_demonstration() -> None:
    bare = RIGHT.removeprefix("<think>")
    of = group(bare)
    best = best_chain(of)
    assert best is not None and best.text == bare and _row(of, best).completion == RIGHT


def test_wrong_or_cut_off_is_not_kept() -> None:
    assert kept(group(RIGHT, correct=False)) is None and kept(group(RIGHT, finish="length")) is None
