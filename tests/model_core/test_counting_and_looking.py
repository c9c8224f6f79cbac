"""What is told of a preparation while it runs and when it fails, how many bad rows it takes, and what is shown before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation import prepare
from model_core.preparation.looking import look

NUM_ROWS, NUM_BAD = 1200, 7


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Good rows, some too short for the filter, and enough for several blocks; the bad ones stand at the end."""
    rows = [
        json.dumps({"q": "why? " * (number % 3 + 1), "a": f"#### {number}", "page": "x" * 4000}) for number in range(NUM_ROWS - NUM_BAD)
    ]
    rows += ["{broken"] * 3 + [json.dumps({"q": "no answer"})] * (NUM_BAD - 3)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    return path


def config(**values: Any) -> PrepareConfig:
    plain = {
        "source": "jsonl", "mapping": {"prompt": "q", "answer": "a"}, "on_bad_row": "skip",
        "filters": [{"name": "length", "config": {"min_prompt_chars": 6}}],
    }  # fmt: skip
    return PrepareConfig.parse({**plain, **values})


def test_counts_grow_and_end_as_the_manifest(file: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    manifest = prepare(config(), out=tmp_path / "v", source_path=file, on_counts=lambda told: seen.append(told()))
    read = [counts["num_read"] for counts in seen]
    assert read[0] == 0 and read == sorted(read) and read[-1] == NUM_ROWS and len(set(read)) >= 4
    assert {name: seen[-1][name] for name in seen[-1] if name != "num_read"} == {
        name: manifest[name] for name in ("num_rows", "num_held_out", "bad_rows", "funnel")
    }
    assert manifest["bad_rows"]["num"] == NUM_BAD and set(manifest["bad_rows"]["reasons"]) == {"not JSON", "no “a”"}


@pytest.mark.parametrize("num_processes", [1, 2])
def test_one_bad_row_too_many_ends_it_with_the_counts_so_far(file: Path, tmp_path: Path, num_processes: int) -> None:
    told: list[Callable[[], dict[str, Any]]] = []
    out, asked = tmp_path / "v", config(max_bad_rows=NUM_BAD - 1)
    with pytest.raises(DataError, match=rf"{NUM_BAD} rows cannot be used, and max_bad_rows is {NUM_BAD - 1}"):
        prepare(asked, out=out, source_path=file, on_counts=told.append, num_processes=num_processes)
    assert not out.exists() and told[-1]()["bad_rows"]["num"] == NUM_BAD and told[-1]()["num_rows"] > 0
    if num_processes == 1:
        assert prepare(config(max_bad_rows=NUM_BAD), out=out, source_path=file)["bad_rows"]["num"] == NUM_BAD


def test_looking_shows_what_the_mapping_makes_of_the_first_rows(tmp_path: Path) -> None:
    long = "a step of many words. " * 60
    rows = [{"q": "1+1?", "a": f"{long}\n#### 2"}, {"q": "2+2?", "a": "no mark"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    mapping = {"prompt": "q", "completion": "a", "answer_pattern": r"####\s*(.+)$"}
    found = look(config(mapping=mapping), path)
    first, second, broken = found["mapped"]
    assert found["columns"] == ["q", "a"] and found["num_rows_seen"] == 2 and len(found["preview"][0]["a"]) == 500
    assert first["row"]["answer"] == "2" and first["row"]["completion"].endswith("</think>2") and " … " in first["row"]["completion"]
    assert "answer_pattern" in second["why"] and "Line 3" in broken["why"]


def test_looking_at_finished_rows_and_at_none(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "rating": True}
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(chat))
    (one,) = look(PrepareConfig.parse({"source": "chats"}), path)["mapped"]
    assert (one["row"]["prompt"], one["row"]["completion"]) == ("Hi", "Hello")
    with pytest.raises(DataError, match="none that these settings keep"):
        look(PrepareConfig.parse({"source": "chats", "source_config": {"min_rating": 2}}), path)
    sums = look(PrepareConfig.parse({"source": "generated"}))
    assert len(sums["mapped"]) == 5 and sums["mapped"][0]["row"]["task"] == "sums"
