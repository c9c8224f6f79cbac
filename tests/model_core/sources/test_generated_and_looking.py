"""Which source reads a file, what is shown of it, and rows that a task makes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.errors import ConfigError, DataError, UnknownName
from model_core.sources import MAX_NAME_CHARS, MAX_VALUE_CHARS, NUM_PREVIEW, PACKED, SOURCES, SUFFIXES, format_of, inspect_file
from model_core.sources.generated import Generated
from model_core.tasks.sums import Sums


@pytest.mark.parametrize("packed", ["", *PACKED])
@pytest.mark.parametrize(("suffix", "source"), SUFFIXES.items())
def test_a_name_tells_its_source_packed_or_not_and_in_any_case(suffix: str, source: str, packed: str) -> None:
    assert source in SOURCES.names() and SOURCES.get(source).is_file
    for name in (f"data{suffix}{packed}", f"DATA{suffix}{packed}".upper(), f"a.b/c d{suffix}{packed}"):
        assert format_of(name) == source


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_other_name_is_refused_with_the_endings_that_are_known(name: str) -> None:
    try:
        assert format_of(name) in SOURCES.names()
    except DataError as error:
        assert error.field == "file" and all(suffix in error.message for suffix in SUFFIXES)


@pytest.mark.parametrize("name", ["", ".", "/", ".gz", "..gz", "jsonl", "a.gz", "a.jsonl.gz.gz", "a.zip", "a.pickle", "a.jsonl.exe", "x" * 5000])
def test_names_of_no_kind(name: str) -> None:
    with pytest.raises(DataError, match="is of no kind") as refused:
        format_of(name)
    assert len(refused.value.message) < 300


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_looking_shows_all_columns_of_the_first_rows_with_values_cut_short(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": "x" * 2000, "n": 3, "f": 0.5, "b": True, "none": None}, {"late": ["y" * 2000]}, *({"a": ""},) * 50]
    found = inspect_file(write(tmp_path / "f", rows), "jsonl")
    assert found["columns"] == ["a", "n", "f", "b", "none", "late"]
    assert found["num_rows_seen"] == len(found["preview"]) == NUM_PREVIEW
    assert found["preview"][0] == {**rows[0], "a": "x" * MAX_VALUE_CHARS}
    assert found["preview"][1]["late"] == str(rows[1]["late"])[:MAX_VALUE_CHARS]


def test_looking_reads_no_more_than_it_shows(tmp_path: Path) -> None:
    path = write(tmp_path / "f", [{"a": "1"}] * NUM_PREVIEW)
    with path.open("ab") as file:
        file.write(b"\xff broken \n")
    assert inspect_file(path, "jsonl")["num_rows_seen"] == NUM_PREVIEW
    with pytest.raises(DataError, match=f"Line {NUM_PREVIEW + 1}"):
        list(SOURCES.get("jsonl")(SOURCES.get("jsonl").Config()).rows(path))


def test_looking_at_nothing_or_at_an_endless_name_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n\n", gzip.compress(b"")):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(DataError, match="no rows"):
            inspect_file(tmp_path / "f", "jsonl")
    inspect_file(write(tmp_path / "f", [{"n" * MAX_NAME_CHARS: 1}]), "jsonl")
    with pytest.raises(DataError, match=f"at most {MAX_NAME_CHARS} characters.*has {MAX_NAME_CHARS + 1}"):
        inspect_file(write(tmp_path / "f", [{"n" * (MAX_NAME_CHARS + 1): 1}]), "jsonl")


def test_generated_rows_are_the_tasks_own() -> None:
    asked = {"num_train": 40, "num_held_out": 10, "task_config": {"num_digits": 2, "story_fraction": 0.5}}
    rows = list(Generated(Generated.Config.parse(asked)).split_rows(3))
    assert rows == list(Sums(Sums.Config(num_digits=2, story_fraction=0.5)).generate(3, 40, 10))
    assert [split for split, _ in rows].count("held_out") == 10
    with pytest.raises(NotImplementedError):
        next(Generated(Generated.Config.parse(asked)).rows(None))


def test_the_tasks_settings_are_filled_in_and_their_mistakes_told_where_they_stand() -> None:
    config = Generated.Config.parse({"task_config": {"num_digits": 2}})
    assert config.task_config == Sums.Config(num_digits=2).resolved()
    assert Generated.Config.parse(config.resolved()) == config
    with pytest.raises(ConfigError) as refused:
        Generated.Config.parse({"task_config": {"num_digits": 7}}, prefix="source_config")
    assert refused.value.field == "source_config.task_config.num_digits"
    with pytest.raises(UnknownName, match=r"There are: .*sums") as unknown:
        Generated.Config.parse({"task": "magic"})
    assert unknown.value.field == "task"
