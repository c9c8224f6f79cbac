"""CSV, JSON Lines, Parquet and text: what is written comes back, what cannot be a row is refused where it stands."""

from __future__ import annotations

import csv
import decimal
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.errors import DataError
from model_core.sources import SOURCES

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


def rows_of(source: str, path: Path, **config: Any) -> list[dict[str, Any]]:
    kind = SOURCES.get(source)
    return list(kind(kind.Config.parse(config)).rows(path))


def written(folder: Path, text: str) -> Path:
    path = folder / "file"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refused(source: str, path: Path, **config: Any) -> str:
    with pytest.raises(DataError) as error:
        rows_of(source, path, **config)
    return error.value.message


# JSON Lines


@QUICK
@given(rows=st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=5), plain=st.booleans())
def test_json_comes_back_whether_its_signs_are_escaped_or_not(tmp_path: Path, rows: list[dict[str, Any]], plain: bool) -> None:
    text = "".join(json.dumps(row, ensure_ascii=not plain) + "\n" for row in rows)
    assert rows_of("jsonl", written(tmp_path, text)) == rows


def test_empty_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    assert rows_of("jsonl", written(tmp_path, '\n{"a": 1}\n  \n{"a": 2}')) == [{"a": 1}, {"a": 2}]
    assert "Line 3 is not JSON" in refused("jsonl", written(tmp_path, '{"a": 1}\n\n{"a": \n'))


@pytest.mark.parametrize(("line", "kind"), [("[1]", "list"), ("3", "int"), ('"a"', "str"), ("null", "NoneType"), ("true", "bool")])
def test_json_that_is_no_object_is_named(line: str, kind: str, tmp_path: Path) -> None:
    assert f"Line 2 is a {kind}, not an object" in refused("jsonl", written(tmp_path, f"{{}}\n{line}\n"))


# CSV


@QUICK
@given(data=st.data(), sign=st.sampled_from(",;\t|"), width=st.integers(2, 4))
def test_a_table_comes_back_from_whatever_separates_it(tmp_path: Path, data: st.DataObject, sign: str, width: int) -> None:
    """Values with quotes, separators and line breaks in them too; a file of Excel is told by its mark."""
    values = data.draw(st.lists(st.lists(TEXT, min_size=width, max_size=width), max_size=5))
    names = [f"column {number}" for number in range(width)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=sign, quoting=csv.QUOTE_ALL).writerows([names, *values])
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    expected = [dict(zip(names, row, strict=True)) for row in values]
    assert rows_of("csv", written(tmp_path, mark + out.getvalue())) == [
        {name: value.replace("\r\n", "\n") for name, value in row.items()} for row in expected]


@pytest.mark.parametrize(("text", "words"), [
    ("", "must name the columns"), ("\na\n", "must name the columns"), ("a,a\n1,2\n", "must name the columns, each once"),
    ("a,b\n1,2\n3\n", "Line 3 has 1 values for 2 columns"), ("a,b\n1,2,3\n", "Line 2 has 3 values for 2 columns"),
    ('a,b\n"1\n1",2\n3\n', "Line 4 has 1 values"), ('a,b\n"1,2\n', "Line 2 cannot be read"), ('a,b\n"1"x,2\n', "Line 2 cannot be read"),
])
def test_a_table_that_is_none_is_refused_at_its_line(text: str, words: str, tmp_path: Path) -> None:
    assert words in refused("csv", written(tmp_path, text))


def test_a_table_of_a_header_alone_has_no_row_and_empty_lines_are_none(tmp_path: Path) -> None:
    assert rows_of("csv", written(tmp_path, "a,b")) == rows_of("csv", written(tmp_path, "a,b\n\n\n")) == []
    assert rows_of("csv", written(tmp_path, "a,b\n\n1,\n")) == [{"a": "1", "b": ""}]


# Parquet

CELLS = st.none() | TEXT
FLOATS = st.none() | st.floats() | st.sampled_from([math.nan, math.inf, -math.inf])


@QUICK
@given(rows=st.lists(st.fixed_dictionaries({"q": CELLS, "n": st.none() | st.integers(-(2**60), 2**60), "flag": st.booleans(),
                                            "x": FLOATS, "many": st.lists(CELLS, max_size=3)}), min_size=1, max_size=6))
def test_a_parquet_table_comes_back_as_json_knows_it(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema({"q": pa.string(), "n": pa.int64(), "flag": pa.bool_(), "x": pa.float64(), "many": pa.list_(pa.string())})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "t")
    finite = [{**row, "x": row["x"] if row["x"] is not None and math.isfinite(row["x"]) else None} for row in rows]
    found = rows_of("parquet", tmp_path / "t")
    assert found == finite and json.loads(json.dumps(found, allow_nan=False)) == finite


def test_decimals_are_text_inner_bytes_are_read_and_batches_are_joined(tmp_path: Path) -> None:
    rows = [{"n": number, "d": decimal.Decimal(number) / 4, "s": {"b": [b"a\xff"]}} for number in range(600)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t", row_group_size=250)
    found = rows_of("parquet", tmp_path / "t")
    assert [row["n"] for row in found] == list(range(600)) and decimal.Decimal(found[7]["d"]) == decimal.Decimal("1.75")
    assert found[0]["s"] == {"b": ["a\ufffd"]}


def test_a_column_of_bytes_of_any_kind_is_left_out_before_it_is_read(tmp_path: Path) -> None:
    kinds = {"a": pa.binary(), "b": pa.large_binary(), "c": pa.binary(2), "q": pa.large_string()}
    table = pa.table({name: pa.array([b"ab" if name != "q" else "ab"], kind) for name, kind in kinds.items()})
    pq.write_table(table, tmp_path / "t")
    assert rows_of("parquet", tmp_path / "t") == [{"q": "ab"}]


# text


@QUICK
@given(paragraphs=st.lists(st.lists(TEXT.map(lambda t: "x" + t.replace("\n", " ")), min_size=1, max_size=3), max_size=4),
       gap=st.sampled_from(["\n\n", "\n\n\n", "\n \t\n"]), ends=st.sampled_from([("", ""), ("\n\n", "\n"), ("\n", "\n\n")]))
def test_paragraphs_come_back_without_the_empty_lines(
    tmp_path: Path, paragraphs: list[list[str]], gap: str, ends: tuple[str, str]
) -> None:
    text = ends[0] + gap.join("\n".join(lines) for lines in paragraphs) + ends[1]
    assert rows_of("text", written(tmp_path, text)) == [{"text": "\n".join(lines)} for lines in paragraphs]


def test_a_paragraph_may_be_as_long_as_said_and_no_longer(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n\n" + "bcd\n" * 5 + "\n")
    assert rows_of("text", path, max_chars=20)[1] == {"text": "\n".join(["bcd"] * 5)}
    assert "paragraph at line 7 is longer than 19 characters" in refused("text", path, max_chars=19)


# limits of all


@pytest.mark.parametrize(("source", "text"), [("jsonl", '{"a": 1}\n' * 3), ("csv", "a\n1\n2\n3\n"), ("text", "a\n\nb\n\nc\n\n")])
def test_rows_up_to_the_limit_are_read_and_one_more_is_refused(source: str, text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    assert len(rows_of(source, path, max_rows=3)) == 3
    assert "more than 2 rows" in refused(source, path, max_rows=2)
