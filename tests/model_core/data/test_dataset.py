"""Rows of a prepared directory: what is written is read, and what is no row is named with its line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.data.dataset import Row, read_rows
from model_core.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)
ROWS = st.lists(st.builds(Row, prompt=TEXT, completion=st.none() | TEXT, answer=st.none() | TEXT, task=st.sampled_from(["", "sums"]),
                          meta=st.dictionaries(TEXT, TEXT, max_size=2), level=st.integers(0, 9)), max_size=6)  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, limit=st.none() | st.integers(0, 8), plain=st.booleans())
def test_rows_come_back_in_order_and_at_most_so_many(tmp_path: Path, rows: list[Row], limit: int | None, plain: bool) -> None:
    text = "".join(json.dumps(asdict(row), ensure_ascii=not plain) + "\n" for row in rows)
    (tmp_path / "held_out.jsonl").write_text(text, encoding="utf-8", newline="")
    assert read_rows(str(tmp_path), "held_out", limit=limit) == (rows if limit is None else rows[:limit])


def test_only_the_prompt_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"prompt": "q"}\n{"prompt": "q", "task": null, "meta": null, "more": 1}')
    assert read_rows(tmp_path, "train") == [Row("q")] * 2


def test_what_lies_behind_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"prompt": "q"}\nbroken\n')
    assert read_rows(tmp_path, "train", limit=1) == [Row("q")]
    with pytest.raises(DataError, match="line 2"):
        read_rows(tmp_path, "train")


@pytest.mark.parametrize("line", [
    b"", b"{", b"[]", b"3", b'"prompt"', b"null", b"{}", b'{"completion": "c"}', b'{"prompt": null}', b'{"prompt": 3}',
    b'{"prompt": "q", "completion": 3}', b'{"prompt": "q", "completion": ["c"]}', b'{"prompt": "q", "level": "hard"}', b'{"prompt": "q", "level": 1.5}',
])
def test_a_line_that_is_no_row_is_named_with_the_remedy(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"prompt": "q"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: .*Prepare the dataset again") as refused:
        read_rows(tmp_path, "train")
    assert refused.value.field == "dataset"


def test_a_missing_split_and_a_file_that_is_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: the dataset is not prepared"):
        read_rows(tmp_path / "nowhere", "train")
    (tmp_path / "train.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8") as refused:
        read_rows(tmp_path, "train")
    assert refused.value.field == "dataset"
    (tmp_path / "train.jsonl").write_bytes(b"")
    assert read_rows(tmp_path, "train") == []
