"""Which completion rejection sampling keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.data.dataset import Row
from model_core.errors import DataError
from model_core.grpo.chains import with_general
from model_core.grpo.keeping import REASONS, keep, why_refused
from model_core.grpo.rollouts import Group, Rollout
from model_core.phases.rejection_sampling import RejectionSampling
from model_core.rewards._scripts import foreign_fraction
from model_core.scoring import Scored

RIGHT = "<think>3+2=5;7+8=15;4+5+1=10</think>1055"


def group(*texts: str, task: str = "sums", correct: bool = True, finish: str = "stop") -> Group:
    rollouts = [Rollout(list(range(len(text))), [], finish, text, Scored(1.0, {}, correct, "")) for text in texts]
    return Group(Row("473+582=", answer="1055", task=task), [1], rollouts)


def kept(of: Group, **settings: Any) -> str | None:
    chosen, _refused = keep(of, RejectionSampling.Config(**settings))
    return chosen[0].text if chosen else None


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


def test_a_chain_whose_opening_mark_is_missing_is_no_demonstration() -> None:
    assert kept(group(RIGHT.removeprefix("<think>"))) is None


def test_wrong_or_cut_off_is_not_kept() -> None:
    assert kept(group(RIGHT, correct=False)) is None and kept(group(RIGHT, finish="length")) is None


def test_every_reason_is_given_to_the_completion_that_it_fits() -> None:
    ok = "<think>2+3=5</think>5"
    wrong, cut, unscored = group(ok, task="", correct=False), group(ok, task="", finish="length"), group(ok, task="")
    (one,) = unscored.rollouts
    unscored.rollouts[0] = dataclasses.replace(one, scored=Scored(None, {}, None, ""))
    shown = {
        "wrong answer": wrong, "cut off": cut, "unscored": unscored,
        "no closed reasoning": group("5", task=""), "false equation": group("<think>2+3=6</think>5", task=""),
        "code block": group("<think>```2+3=5```</think>5", task=""), "long paragraph": group(f"<think>{'a ' * 2001}</think>5", task=""),
        "mixed scripts": group("<think>two plus three 二加三等于五</think>5", task=""),
    }  # fmt: skip
    said = {why: why_refused(of.row, of.rollouts[0], RejectionSampling.Config()) for why, of in shown.items()}
    assert said == {why: why for why in shown}
    low = group(ok, task="")
    assert why_refused(low.row, low.rollouts[0], RejectionSampling.Config(min_reward=1.5)) == "reward too low"
    assert set(REASONS) - set(said) == {"reward too low", "duplicate", "not the best of its prompt"}


@pytest.mark.parametrize(("settings", "text"), [
    ({"refuse_code_blocks": False}, "<think>```2+3=5```</think>5"), ({"max_paragraph_chars": 0}, f"<think>{'a ' * 2001}</think>5"),
    ({"refuse_mixed_scripts": False}, "<think>two plus three 二加三等于五</think>5"),
])
def test_each_rule_can_be_switched_off(settings: dict[str, Any], text: str) -> None:
    assert kept(group(text, task="")) is None and kept(group(text, task=""), **settings) == text


def test_more_than_one_chain_a_prompt_without_duplicates_and_every_completion_is_accounted_for() -> None:
    longer = "<think>3+2=5;7+8=15;4+5+1=10;5+1000=1005</think>1055"
    of = group(RIGHT, RIGHT, longer, "<think>473+582=1055</think>1055", "1055", task="")
    chosen, refused = keep(of, RejectionSampling.Config(max_chains_per_prompt=2))
    assert [one.text for one in chosen] == ["<think>473+582=1055</think>1055", RIGHT]
    assert refused == {"duplicate": 1, "not the best of its prompt": 1, "no closed reasoning": 1}
    assert len(chosen) + refused.total() == len(of.rollouts)


def test_the_best_reward_comes_before_the_shortest_when_it_is_preferred() -> None:
    of = group("<think>473+582=1055</think>1055", RIGHT)
    of.rollouts[1] = dataclasses.replace(of.rollouts[1], scored=Scored(2.0, {}, True, ""))
    assert kept(of, prefer="best_reward") == RIGHT != kept(of)


@pytest.mark.parametrize(("text", "expected"), [
    ("", 0.0), ("12+3=15", 0.0), ("let α = β + π", 0.0), ("abcd дв", 2 / 6), ("日本の かな カナ", 0.0), ("abc 二", 0.25),
])
def test_how_foreign_a_text_is(text: str, expected: float) -> None:
    assert foreign_fraction(text) == pytest.approx(expected)


@given(st.text())
def test_a_text_is_at_most_foreign_by_less_than_all_of_it(text: str) -> None:
    assert 0.0 <= foreign_fraction(text) < 1.0
    assert foreign_fraction(text + text) == pytest.approx(foreign_fraction(text))


def test_general_demonstrations_are_the_share_that_is_asked_for_and_drawn_by_the_seed() -> None:
    chains = [Row(f"{number}+1=", "c", "a", "sums") for number in range(6)]
    general = [Row(f"tell {number}", "told") for number in range(50)]
    mixed = with_general(chains, [*general, *chains, Row("no demonstration")], fraction=0.25, seed=3)
    assert mixed[:6] == chains and len(mixed) == 8 and {row.prompt for row in mixed[6:]} <= {row.prompt for row in general}
    assert mixed == with_general(chains, general, fraction=0.25, seed=3) != with_general(chains, general, fraction=0.25, seed=4)
    assert len(with_general(chains, general[:3], fraction=0.9, seed=0)) == 9 and with_general(chains, general, fraction=0.0, seed=0) is chains
    with pytest.raises(DataError, match="general_fraction asks for rows") as refused:
        with_general(chains, chains, fraction=0.25, seed=0)
    assert refused.value.field == "phase_config.general_fraction"
