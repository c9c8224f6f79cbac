"""A bad row is refused, or left out and counted with an example; what stands beside it is read as if it were not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from model_core.config import MappingConfig, PrepareConfig
from model_core.data.dataset import read_rows
from model_core.errors import DataError
from model_core.preparation import mapped, prepare
from model_core.sources import SOURCES, _lines
from model_core.sources._bad import BadRow


def read(source: str, path: Path, **config: Any) -> tuple[list[dict[str, Any]], list[BadRow]]:
    """Rows and bad rows, which must be what refusing refuses."""
    kind, bad = SOURCES.get(source), list[BadRow]()
    rows = list(kind(kind.Config.parse(config)).rows(path, bad.append))
    if bad:
        with pytest.raises(DataError) as refused:
            list(kind(kind.Config.parse(config)).rows(path))
        assert refused.value.message == bad[0].message and type(refused.value) is DataError
    assert all(one.reason and len(one.excerpt) <= 300 for one in bad)
    return rows, bad


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_lines_of_json_that_cannot_be_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 1 << 16)
    long = b'{"a": "' + b"x" * (1 << 20) + b'"}'
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \xff}\n{"a"\n' + long + b'\n[1]\n{"a": 2}\n')
    rows, bad = read("jsonl", file)
    assert rows == [{"a": 1}, {"a": 2}]
    assert [(one.reason, one.message.split()[1]) for one in bad] == [
        ("not UTF-8", "3"), ("not JSON", "4"), ("line too long", "5"), ("not an object", "6")]


def test_a_broken_quote_spoils_one_line(file: Path) -> None:
    file.write_text('\ufeffa,b\n1,2\n"x"y,3\n4,"five\nlines"\n"open,6\n7,8\n9\n10,11\n')
    rows, bad = read("csv", file)
    assert rows == [{"a": "1", "b": "2"}, {"a": "4", "b": "five\nlines"}, {"a": "7", "b": "8"}, {"a": "10", "b": "11"}]
    assert [one.reason for one in bad] == ["broken quotes", "broken quotes", "wrong number of values"]
    assert [one.excerpt for one in bad] == ['"x"y,3', '"open,6', "9"]


def test_quotes_without_an_end_are_given_up_within_bounds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_core.sources.csv.MAX_LINE_BYTES", 1000)
    file.write_text('a,b\n"open,0\n' + "".join(f"{n},x\n" for n in range(2000)))
    rows, bad = read("csv", file)
    assert len(rows) == 2000 and [one.excerpt for one in bad] == ['"open,0']


def test_a_line_that_is_missing_inside_quotes_spoils_the_record(file: Path) -> None:
    file.write_bytes(b'a,b\n1,"two\n\xff\nthree"\n4,5\n')
    rows, bad = read("csv", file)
    assert rows[-1:] == [{"a": "4", "b": "5"}] and {"a": "1", "b": "two\nthree"} not in rows
    assert bad[0].reason == "not UTF-8" and len(bad) >= 2


def test_a_paragraph_with_a_line_that_cannot_be_read_is_left_out(file: Path) -> None:
    file.write_bytes(b"a\nb\n\nc\n\xff\nd\n\ne\n\nf\n\xff")
    rows, bad = read("text", file)
    assert rows == [{"text": "a\nb"}, {"text": "e"}] and [one.reason for one in bad] == ["not UTF-8"] * 2
    rows, bad = read("text", file.with_name("long") if file.with_name("long").write_text("abc\nd\n\nab\n") else file, max_chars=4)
    assert rows == [{"text": "ab"}] and [one.reason for one in bad] == ["paragraph too long"]


def test_documents_keep_their_empty_lines(file: Path) -> None:
    file.write_text("a\n\nb\n<|end|>\n\nc\n<|end|>\n")
    assert read("text", file, unit="document", separator="<|end|>")[0] == [{"text": "a\n\nb"}, {"text": "c"}]
    assert len(read("text", file, unit="document")[0]) == 1


def test_text_of_a_table_that_is_not_utf8(file: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"q": texts}), file)
    rows, bad = read("parquet", file)
    assert rows == [{"q": "a"}, {"q": "c"}] and bad[0].message.startswith("Row 2 is not UTF-8")


@pytest.mark.parametrize("cut", [-1, -5, 20])
def test_a_packed_file_that_breaks_off_always_ends_the_reading(cut: int, file: Path) -> None:
    file.write_bytes(zstandard.ZstdCompressor().compress(b"".join(b'{"a": %d}\n' % n for n in range(1000)))[:cut])
    kind, bad = SOURCES.get("jsonl"), list[BadRow]()
    with pytest.raises(DataError, match="breaks off"):
        list(kind(kind.Config()).rows(file, bad.append))
    assert not bad


@pytest.mark.parametrize(("source", "text"), [("jsonl", '{"a": 1}\n\n\n' * 3), ("csv", "a,b\n1,2\n\n\n3,4\n\n5,6\n")])
def test_empty_lines_are_no_rows_for_the_limit(source: str, text: str, file: Path) -> None:
    file.write_text(text)
    assert len(read(source, file, max_rows=3)[0]) == 3


def test_a_version_without_its_bad_rows_says_what_they_were(file: Path) -> None:
    rows: list[Any] = [{"q": f"q{n}", "a": n} for n in range(20)]
    bad: list[Any] = [{"a": 1}, {"q": "x", "a": [1]}, {"q": "y", "a": True}, {"q": "z", "a": None}]
    file.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows[:10] + bad + rows[10:]) + b"\xff\n")
    asked = {"source": "jsonl", "mapping": {"prompt": "q", "answer": "a"}, "on_bad_row": "skip", "held_out_fraction": 0.0}
    found = prepare(PrepareConfig.parse(asked), out=file.with_name("v"), source_path=file)
    assert found["num_rows"] == 20 and found["bad_rows"]["num"] == 5
    assert found["bad_rows"]["reasons"] == {"“a” is no text": 2, "no “q”": 1, "no “a”": 1, "not UTF-8": 1}
    assert {one["reason"] for one in found["bad_rows"]["examples"]} == set(found["bad_rows"]["reasons"])
    assert [row.answer for row in read_rows(file.with_name("v"), "train")] == [str(n) for n in range(20)]
    with pytest.raises(DataError, match="Row 11 has no “q”"):
        prepare(PrepareConfig.parse({**asked, "on_bad_row": "refuse"}), out=file.with_name("w"), source_path=file)


def test_when_all_rows_are_bad_one_is_shown(file: Path) -> None:
    file.write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"No training row is left of 2 .* 2 could not be used, for example: Row 1 has no “prompt”"):
        prepare(PrepareConfig.parse({"source": "jsonl", "on_bad_row": "skip"}), out=file.with_name("v"), source_path=file)


@pytest.mark.parametrize(("answer", "text"), [("3", "3"), (3, "3"), (2.5, "2.5"), (None, None)])
def test_a_number_is_read_back_as_its_text(answer: object, text: str | None, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": "q", "answer": answer}))
    assert read_rows(tmp_path, "train")[0].answer == text


@pytest.mark.parametrize("answer", [True, ["3"], {"value": 3}])
def test_an_answer_that_is_neither_text_nor_a_number_is_refused(answer: object, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": "q", "answer": answer}))
    with pytest.raises(DataError, match="line 1: the answer must be text or a number"):
        read_rows(tmp_path, "train")


@pytest.mark.parametrize(("pattern", "why"), [(r"#(\d)?", "its first group no answer"), (r"@(\d)", "finds nothing")])
def test_a_pattern_whose_group_is_not_there_finds_no_answer(pattern: str, why: str) -> None:
    asked = MappingConfig(prompt="q", completion="c", answer_pattern=pattern)
    with pytest.raises(BadRow, match=why) as refused:
        mapped({"q": "x", "c": "so # it is"}, asked, 1)
    assert refused.value.field == "mapping.answer_pattern"


@pytest.mark.parametrize(("value", "text"), [(24, "24"), (2.5, "2.5"), (1e22, "1" + "0" * 22), (-0.000001, "-0.000001")])
def test_a_number_is_mapped_to_its_digits(value: float, text: str) -> None:
    assert mapped({"q": "x", "a": value}, MappingConfig(prompt="q", answer="a"), 1)["answer"] == text.removesuffix(".0")


def test_chats_and_reasoning_are_mapped_by_field() -> None:
    said = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    row = mapped({"m": said, "r": "one and one", "rate": 0.5}, MappingConfig(messages="m", reasoning="r", keep=["rate"]), 1)
    assert (row["prompt"], row["completion"], row["meta"]) == ("1+1?", "<think>one and one</think>2", {"rate": 0.5})
    longer = [{"role": "system", "content": "Be brief."}, *said, {"role": "user", "content": "And 2+2?"}, {"role": "assistant", "content": "4"}]
    row = mapped({"m": longer}, MappingConfig(messages="m"), 1)
    assert row["prompt"] == "System: Be brief.\n\nUser: 1+1?\n\nAssistant: 2\n\nUser: And 2+2?" and row["completion"] == "4"
    for broken in ("text", [], said[:1], [{"role": "king", "content": "x"}, said[1]]):
        with pytest.raises(BadRow):
            mapped({"m": broken}, MappingConfig(messages="m"), 1)
