"""Every line of events.jsonl is whole and its number follows the one before, also when the disk was full."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from model_core.events import EventWriter
from tests.model_core.file_limit import file_limit


def test_a_short_write_leaves_nothing_and_takes_no_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.emit("warning", message="a")
    whole = path.read_bytes()
    with file_limit(len(whole) + 20):
        for _ in range(2):
            with pytest.raises(OSError, match="bytes of an event"):
                writer.emit("warning", message="b")
            assert path.read_bytes() == whole
    writer.emit("warning", message="c")
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["seq"], line["payload"]["message"]) for line in lines] == [(1, "a"), (2, "c")]


def test_numbers_that_are_not_finite_are_words(tmp_path: Path) -> None:
    with closing(EventWriter(tmp_path / "e")) as writer:
        writer.emit("scalars", step=1, values={"loss": float("nan"), "grad_norm": float("inf"), "lr": -float("inf")})
    assert json.loads((tmp_path / "e").read_text())["payload"]["values"] == {"loss": "nan", "grad_norm": "inf", "lr": "-inf"}


def test_an_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with closing(EventWriter(path)) as writer:
        writer.emit("warning", message="a")
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "ki')
    with closing(EventWriter(path)) as writer:
        assert writer.emit("warning", message="b") == 2
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2
