"""Sources whose rows need no mapping, rows of the hub from a local copy, and what happens to rows that cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation import prepare
from model_core.sources import SOURCES


def rows_of(name: str, path: Path, **settings: Any) -> list[dict[str, Any]]:
    cls = SOURCES.get(name)
    return list(cls(cls.Config.parse(settings)).rows(path))


def completion(text: str, **values: Any) -> dict[str, Any]:
    return {"text": text, "num_tokens": len(text), "finish_reason": "stop", "correct": True, "reward": 1.0, **values}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """What a run stores: two steps of a group each."""
    groups = [
        {"prompt": "1+2=", "answer": "3", "task": "sums", "completions": [
            completion("<think>1+2=3;3=3</think>3"), completion("1+2=3</think>3", reward=0.5), completion("<think>4</think>4", correct=False),
            completion("<think>1+", finish_reason="length", correct=False)]},
        {"prompt": "2+2=", "answer": "4", "task": "sums", "completions": [completion("<think>5</think>5", correct=False), completion("x", correct=None, reward=None)]},
    ]  # fmt: skip
    for number, group in enumerate(groups, start=1):
        with gzip.open(tmp_path / f"step_{number:08d}.jsonl.gz", "wt") as file:
            file.write(json.dumps(group) + "\n")
    return tmp_path


def test_rollouts_become_demonstrations_with_their_pass_rate(samples: Path) -> None:
    (kept,) = rows_of("rollouts", samples)
    assert kept["completion"] == "<think>1+2=3</think>3" and kept["meta"]["pass_rate"] == 0.5 and kept["task"] == "sums"
    (best,) = rows_of("rollouts", samples, prefer="best_reward")
    assert best["completion"] == "<think>1+2=3;3=3</think>3"
    assert len(rows_of("rollouts", samples, per_prompt=9)) == 2 and len(rows_of("rollouts", samples, per_prompt=9, min_reward=0.6)) == 1
    everything = rows_of("rollouts", samples, keep="all", finished_only=False, per_prompt=9)
    assert len(everything) == 6 and everything[-1]["meta"]["pass_rate"] == 0.0
    assert rows_of("rollouts", samples / "step_00000002.jsonl.gz") == []
    with pytest.raises(DataError, match="There are no rollouts"):
        rows_of("rollouts", samples / "nothing")


def test_rated_chats_become_rows_when_they_were_liked(tmp_path: Path) -> None:
    def said(rating: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}], "rating": rating}

    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(said(rating)) + "\n" for rating in (True, False, None, 3)))
    assert [row["meta"]["rating"] for row in rows_of("chats", path)] == [1.0, 3.0]
    assert [row["meta"]["rating"] for row in rows_of("chats", path, keep_unrated=True, min_rating=2)] == [None, 3.0]
    (first, *_rest) = rows_of("chats", path)
    assert (first["prompt"], first["completion"], first["answer"]) == ("hi", "ho", None)
    path.write_text(json.dumps({"messages": [], "rating": True}) + "\n")
    with pytest.raises(DataError):
        rows_of("chats", path)


def test_the_hub_is_streamed_from_a_local_copy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"question": f"q{number}", "answer": number}) + "\n" for number in range(5)))
    assert [row["question"] for row in rows_of("hub", tmp_path, num_rows=3)] == ["q0", "q1", "q2"]
    with pytest.raises(DataError) as refused:
        rows_of("hub", tmp_path, split="nothing")
    assert refused.value.field == "source_config.repository"


BAD = '{"q": "one", "a": "1"}\n{"q": "two"}\nnonsense\n["q"]\n{"q": "five", "a": {"x": 1}}\n\n{"q": "six", "a": 6}\n{"q": "se\\ud800ven", "a": "7"}\n'


def test_bad_rows_are_refused_or_counted_with_an_example(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(BAD)
    asked = {"source": "jsonl", "mapping": {"prompt": "q", "answer": "a"}, "held_out_fraction": 0.0}
    with pytest.raises(DataError, match=r"Row 2 has no “a”|Line 3 is not JSON"):
        prepare(PrepareConfig.parse(asked), out=tmp_path / "refused", source_path=path)
    assert not (tmp_path / "refused").exists()
    manifest = prepare(PrepareConfig.parse({**asked, "on_bad_row": "skip"}), out=tmp_path / "skipped", source_path=path)
    kept = [json.loads(line) for line in (tmp_path / "skipped" / "train.jsonl").read_text().splitlines()]
    assert [(one["prompt"], one["answer"]) for one in kept] == [("one", "1"), ("six", "6")]
    told = manifest["bad_rows"]
    assert told["num"] == 5 and sum(told["reasons"].values()) == 5 and len(told["examples"]) >= 3
