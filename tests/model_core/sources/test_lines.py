"""Lines come out as they went in, plain or packed; what breaks off, is endless or is no text is refused by its line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.errors import DataError
from model_core.sources import _lines
from model_core.sources._lines import lines

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstandard": lambda data: zstandard.ZstdCompressor().compress(data),
}


def texts(path: Path) -> list[str]:
    """The lines without their numbers, which count from one without a gap."""
    found = list(lines(path))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [text for _, text in found]


LINE = st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]), max_size=30)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        list(lines(path))
    assert error.value.field == "file"
    return error.value.message


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(LINE, max_size=8), end=st.sampled_from(["\n", "\r\n"]), packer=st.sampled_from(sorted(PACKERS)), last=st.booleans())
def test_lines_come_back(tmp_path: Path, rows: list[str], end: str, packer: str, last: bool) -> None:
    """Ends of either kind, the last one there or not; signs that only Python takes for ends are part of a line."""
    text = end.join(rows) + (end if last and rows else "")
    expected = rows if last or not rows or rows[-1] else rows[:-1]
    assert texts(written(tmp_path, PACKERS[packer](text.encode()))) == expected


@pytest.mark.parametrize("packer", ["gzip", "zstandard"])
def test_files_packed_one_after_another_are_one(packer: str, tmp_path: Path) -> None:
    pack = PACKERS[packer]
    assert texts(written(tmp_path, pack(b"a\nb") + pack(b"c\nd\n"))) == ["a", "bc", "d"]


@pytest.mark.parametrize("packer", PACKERS)
def test_no_text_is_refused_at_its_line_and_byte(packer: str, tmp_path: Path) -> None:
    said = refused(written(tmp_path, PACKERS[packer](b"good\nab\xff\n")))
    assert "Line 2 is not UTF-8" in said and "byte 2" in said


@pytest.mark.parametrize("packer", PACKERS)
def test_an_endless_line_is_refused(packer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 1 << 20)
    longest = b"x" * ((1 << 20) - 1) + b"\n"
    assert [len(line) for line in texts(written(tmp_path, longest * 2))] == [(1 << 20) - 1] * 2
    assert "Line 1 is longer than 1 MiB" in refused(written(tmp_path, PACKERS[packer](b"x" * ((1 << 20) + 1))))


@pytest.mark.parametrize("cut", [-1, -9, 12])
def test_a_gzip_file_that_breaks_off_is_refused(cut: int, tmp_path: Path) -> None:
    packed = PACKERS["gzip"](b"".join(b"line %d\n" % number for number in range(100)))
    assert "breaks off or is damaged" in refused(written(tmp_path, packed[:cut]))


@pytest.mark.parametrize("packer", ["gzip", "zstandard"])
def test_a_damaged_file_is_refused(packer: str, tmp_path: Path) -> None:
    packed = bytearray(PACKERS[packer](b"".join(b"line %d\n" % (number * 7919) for number in range(1000))))
    packed[6 if packer == "zstandard" else len(packed) // 2] ^= 0xFF
    assert "damaged" in refused(written(tmp_path, bytes(packed)))


@pytest.mark.parametrize("packer", ["gzip", "zstandard"])
def test_what_unpacks_to_too_much_is_refused_while_it_does(packer: str, tmp_path: Path) -> None:
    path, seen = written(tmp_path, PACKERS[packer](b"0123456789abcde\n" * 400_000)), 0
    with pytest.raises(DataError, match="more than 200 times its size"):
        for _ in lines(path):
            seen += 1
    assert 16 * seen <= (1 << 20) or 16 * seen <= 200 * path.stat().st_size


def test_a_plain_file_may_repeat_itself(tmp_path: Path) -> None:
    assert sum(1 for _ in lines(written(tmp_path, b"0123456789abcdef\n" * 100_000))) == 100_000
