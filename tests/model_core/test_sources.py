"""Files of others: every format gives the same rows, and what cannot be kept is refused at its line."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_core.errors import DataError
from model_core.sources import SOURCES, format_of, inspect_file

ROWS = [{"q": "1+1?", "a": "2"}, {"q": "ß, “quoted”\nand broken", "a": "4"}]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """The rows as a file of the kind that its name says."""
    kind = format_of(path.name)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if kind == "csv":
        quoted = ['"{q}","{a}"'.format(**row) for row in rows]
        text = "q,a\n" + "\n".join(quoted) + "\n"
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rows_of(path: Path, **config: Any) -> list[dict[str, Any]]:
    kind = SOURCES.get(format_of(path.name))
    return list(kind(kind.Config(**config)).rows(path))


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.csv", "r.csv.gz", "r.parquet"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    assert rows_of(path) == ROWS
    assert inspect_file(path, format_of(name))["columns"] == ["q", "a"]


def test_what_json_does_not_know_becomes_text_and_bytes_are_left_out(tmp_path: Path) -> None:
    day = datetime.date(2026, 11, 24)
    path = write(tmp_path / "r.parquet", [{"q": "x", "day": day, "image": b"\xff", "nested": [{"at": day}], "n": float("nan")}])
    assert rows_of(path) == [{"q": "x", "day": "2026-11-24", "nested": [{"at": "2026-11-24"}], "n": None}]


def test_a_table_of_bytes_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column that holds text"):
        rows_of(write(tmp_path / "r.parquet", [{"image": b"\xff"}]))


@pytest.mark.parametrize("cut", [0, 3, 40, -1])
def test_a_damaged_table_is_refused(cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="no Parquet file that can be read"):
        rows_of(path)


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv", "r.parquet"])
def test_more_rows_than_allowed_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows"):
        rows_of(write(tmp_path / name, ROWS * 3), max_rows=4)


def test_a_table_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"q": ["x" * 1_000_000] * 40}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match="unpacks to more than"):
        rows_of(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"q": NaN}', "NaN is no finite number"),
        (b'{"q": 1e999}', "1e999 is no finite number"),
        (b'{"q": "\\ud800"}', "half of a character"),
        (b'{"\\udc00": 1}', "half of a character"),
        (b'{"q": ' + b"9" * 5000 + b"}", "Line 2 is not JSON"),
        (b'{"q": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"[1]", "not an object"),
    ],
)
def test_a_line_that_cannot_be_kept_is_refused_by_its_number(line: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"q": "\\ud83d\\ude00"}\n' + line + b"\n")
    with pytest.raises(DataError, match=words) as refused:
        rows_of(path)
    assert "Line 2" in refused.value.message


def test_a_pair_of_surrogates_is_one_character(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"q": "\\ud83d\\ude00"}\n')
    assert rows_of(path) == [{"q": "\U0001f600"}]


def test_looking_into_a_file_is_a_word_of_its_own(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "r.jsonl"), tmp_path / "b.jsonl"
    bad.write_text("{\n")
    for path, status, key in ((good, 0, "found"), (bad, 2, "error")):
        argv = [sys.executable, "-m", "model_core", "inspect", "jsonl", str(path)]
        done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, timeout=60, check=False)
        assert done.returncode == status and list(json.loads(done.stdout)) == [key]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_header_says_what_separates_the_values(sign: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f'\ufeff"q; asked, or | not"{sign}a\n"2+2="{sign}4\n', encoding="utf-8")
    assert rows_of(path) == [{"q; asked, or | not": "2+2=", "a": "4"}]
