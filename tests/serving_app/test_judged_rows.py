"""What judgements amount to: votes, duplicates, disagreement; and the laws that hold for any of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.config import MappingConfig
from model_core.preparation.mapping import mapped
from model_core.sources.chats import Chats
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS, judged_rows
from serving_app.models import Judgement
from serving_app.services.judged_datasets import PREPARE


def judgement(pk: int, kind: str, chosen: str = "", rejected: str = "", **more: Any) -> Judgement:
    prompt = more.pop("prompt", [{"role": "user", "content": more.pop("asked", "What is 1 + 1?")}])
    value = more.pop("value", 1 if chosen else -1)
    return Judgement(pk=pk, kind=kind, chosen=chosen, rejected=rejected, value=value, prompt=prompt, **more)


def texts(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_edits_choices_and_opposite_ratings_are_pairs() -> None:
    said = [
        judgement(1, "edit", "2", "3"), judgement(2, "choice", "two", "four"), judgement(3, "rating", "Two."),
        judgement(4, "rating", rejected="Five."), judgement(5, "rating", rejected="Six.", asked="Else?"),
    ]  # fmt: skip
    found = judged_rows(said, PAIRS)
    assert texts(found.rows) == [("2", "3"), ("two", "four"), ("Two.", "Five.")]
    assert found.judgements == {1, 2, 3, 4}


def test_equal_pairs_are_one_with_its_votes_and_reasons() -> None:
    said = [judgement(1, "choice", "a  b", "c", reasons=["clear"]), judgement(2, "choice", "a b", "c\n", reasons=["correct"])]
    found = judged_rows(said, PAIRS)
    assert texts(found.rows) == [("a  b", "c")] and found.num_repeated == 1
    assert found.rows[0]["votes"] == 2 and found.rows[0]["reasons"] == ["clear", "correct"]


def test_the_majority_is_the_row_and_a_draw_is_none() -> None:
    said = [judgement(1, "choice", "a", "b"), judgement(2, "choice", "b", "a"), judgement(3, "choice", "a", "b")]
    found = judged_rows(said, PAIRS)
    assert texts(found.rows) == [("a", "b")] and (found.rows[0]["votes"], found.rows[0]["against"]) == (2, 1)
    assert 2 not in found.judgements
    drawn = judged_rows(said[:2], PAIRS)
    assert drawn.rows == [] and drawn.num_drawn == 1


def test_good_answers_are_demonstrations_unless_as_many_found_them_bad() -> None:
    said = [
        judgement(1, "rating", "good"), judgement(2, "rating", "good "), judgement(3, "rating", rejected="good"),
        judgement(4, "rating", "split"), judgement(5, "rating", rejected="split"), judgement(6, "edit", "mine", "theirs"),
    ]  # fmt: skip
    found = judged_rows(said, DEMONSTRATIONS)
    assert [row["messages"][-1]["content"] for row in found.rows] == ["good", "mine"]
    assert found.rows[0]["rating"] == 1 and found.num_drawn == 1


def test_ties_are_no_data() -> None:
    tie = judgement(1, "choice", "a", "b", value=0)
    assert judged_rows([tie], PAIRS).rows == judged_rows([tie], DEMONSTRATIONS).rows == []


short = st.sampled_from(["a", "b", "a ", "c"])
any_judgement = st.one_of(
    st.tuples(st.just("choice"), short, short), st.tuples(st.just("edit"), short, short),
    st.tuples(st.just("rating"), short, st.just("")), st.tuples(st.just("rating"), st.just(""), short),
)  # fmt: skip


@given(st.lists(any_judgement, max_size=12))
def test_rows_are_unique_never_contradict_and_come_in_one_order(given_: list[tuple[str, str, str]]) -> None:
    said = [judgement(pk, *one) for pk, one in enumerate(given_, 1)]
    for form in (PAIRS, DEMONSTRATIONS):
        found = judged_rows(said, form)
        assert found.encoded() == judged_rows(said[::-1], form).encoded()
        assert all(row["votes"] > row["against"] for row in found.rows)
    pairs = [(a.split(), b.split()) for a, b in texts(judged_rows(said, PAIRS).rows)]
    assert all(a != b and (b, a) not in pairs and pairs.count((a, b)) == 1 for a, b in pairs)


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And 2+2?"}]  # fmt: skip


@pytest.mark.parametrize("prompt", [CHAT, CHAT[1:2]])
def test_the_rows_are_read_by_the_dataset_machinery(prompt: list[dict[str, str]], tmp_path: Any) -> None:
    said = [judgement(1, "edit", "<think>2+2</think>4", "5", prompt=prompt)]
    pair = json.loads(judged_rows(said, PAIRS).encoded())
    row = mapped(pair, MappingConfig(**PREPARE[PAIRS]["mapping"]), 1)
    assert (row["chosen"], row["rejected"], row["meta"]["votes"]) == ("<think>2+2</think>4", "5", 1)
    file = tmp_path / "chats.jsonl"
    file.write_bytes(judged_rows(said, DEMONSTRATIONS).encoded())
    [read] = Chats(Chats.Config()).rows(file)
    assert read["completion"] == "<think>2+2</think>4" and read["prompt"] == row["prompt"]
    assert row["prompt"] == ("1+1?" if len(prompt) == 1 else "System: Be brief.\n\nUser: 1+1?\n\nAssistant: 2\n\nUser: And 2+2?")
