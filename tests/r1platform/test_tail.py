"""Reading in any portions gives the same lines as reading at once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1platform.lib.tail import GLANCE_SECONDS, LineTooLong, read_lines, read_log, search_log, wait_for_growth

lines_of_text = st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=lines_of_text, cuts=st.lists(st.integers(0, 900), max_size=8), size=st.integers(40, 200))
def test_portions_make_the_whole(tmp_path: Path, lines: list[bytes], cuts: list[int], size: int) -> None:
    path = tmp_path / "file"
    data = b"".join(line + b"\n" for line in lines)
    found: list[bytes] = []
    offset = 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data), *[len(data)] * (len(data) // 8 + 1)]:
        path.write_bytes(data[:cut])
        some, offset = read_lines(path, offset, max_bytes=size)
        found += some
    assert found == lines
    assert offset == len(data)


def test_a_line_being_written_is_left(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_lines(path, 0) == ([], 0)
    path.write_bytes(b'{"seq": 1}\n{"se')
    lines, offset = read_lines(path, 0)
    assert [json.loads(line) for line in lines] == [{"seq": 1}]
    assert read_lines(path, offset) == ([], offset)
    path.write_bytes(b'{"seq": 1}\n{"seq": 2}\n')
    assert read_lines(path, offset)[0] == [b'{"seq": 2}']


def test_an_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with pytest.raises(LineTooLong):
        read_lines(path, 0, max_bytes=50)


def test_waiting_ends_when_the_file_grows_and_at_the_latest_in_time(tmp_path: Path) -> None:
    path = tmp_path / "events"
    began = time.monotonic()
    assert not wait_for_growth(path, 0, seconds=0.1) and time.monotonic() - began >= 0.1
    path.write_bytes(b"123")
    assert not wait_for_growth(path, 3, seconds=0.05)
    writer = threading.Timer(0.1, lambda: path.write_bytes(b"1234"))
    writer.start()
    began = time.monotonic()
    assert wait_for_growth(path, 3, seconds=30) and time.monotonic() - began < 5
    writer.join()
    began = time.monotonic()
    assert wait_for_growth(path, 3, seconds=30) and GLANCE_SECONDS <= time.monotonic() - began < 5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text("abc", max_size=20), min_size=1, max_size=40), size=st.integers(25, 90))
def test_going_back_from_the_end_gives_every_line_once(tmp_path: Path, lines: list[str], size: int) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{line}\n" for line in lines))
    part = read_log(path, max_bytes=size)
    texts = [part["text"]]
    while part["offset"] > 0:
        part = read_log(path, before=part["offset"], max_bytes=size)
        texts.insert(0, part["text"])
    assert "".join(texts) == path.read_text()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text("abAB ", max_size=9), max_size=60), text=st.text("aBb", max_size=3), begins=st.sampled_from(["", "a", "B"]))
def test_a_search_finds_what_a_plain_look_finds(tmp_path: Path, lines: list[str], text: str, begins: str) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{line}\n" for line in lines))
    expected = [line for line in lines if text.lower() in line.lower() and line.startswith(begins)]
    found = search_log(path, text, begins=begins, max_lines=5)
    assert [line["text"] for line in found["lines"]] == expected[-5:] and found["num_found"] == len(expected)
    whole = path.read_bytes()
    assert all(whole[line["offset"] :].startswith(line["text"].encode()) for line in found["lines"])


def test_a_search_of_a_long_log_reads_its_end_and_of_none_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert search_log(path, "x") == {"lines": [], "num_found": 0, "num_searched": 0, "size": 0}
    path.write_text("x first\n" + "-" * 100 + "\nx last\n")
    found = search_log(path, "x", max_bytes=50)
    assert [line["text"] for line in found["lines"]] == ["x last"] and found["num_searched"] == 50
