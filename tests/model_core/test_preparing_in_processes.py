"""Several processes make the very same version as one, errors included; statistics stay small and true."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation import prepare, statistics, version
from model_core.preparation.statistics import Answers, Lengths
from model_core.sources import _lines
from model_core.sources.jsonl import Jsonl

FUNNEL = [
    {"name": "length", "config": {"max_prompt_chars": 400}}, {"name": "exact_duplicates"},
    {"name": "c4", "config": {"min_sentences": 2}}, {"name": "near_duplicates"}, {"name": "difficulty"},
    {"name": "exact_duplicates", "config": {"text": "all"}},
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Rows of few words, so that many are equal, nearly equal, without an end or too long."""
    draw, path = random.Random(0), tmp_path / "in.jsonl"
    words = [f"word{number}" for number in range(40)]
    with path.open("w") as out:
        for number in range(600):
            text = ". ".join(" ".join(draw.sample(words, 6)) for _ in range(draw.randint(1, 9))) + draw.choice((".", ""))
            text = text if number % 7 else "The same text again. It is here. And once more. Yes it is."
            out.write(json.dumps({"prompt": text, "a": draw.randint(0, 9), "pass_rate": draw.choice((None, 0.0, 0.5, 1.0))}) + "\n")
            if number % 100 == 50:
                out.write(draw.choice(("{\n", '{"a": 1}\n')))
    return path


def asked(**values: Any) -> PrepareConfig:
    return PrepareConfig.parse({"source": "jsonl", "mapping": {"answer": "a", "keep": ["pass_rate"]}, "filters": FUNNEL,
                                "on_bad_row": "skip", "held_out_fraction": 0.3, **values})  # fmt: skip


def test_two_processes_make_the_same_version_as_one(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "CHUNK_ROWS", 50)
    found = [prepare(asked(), out=tmp_path / f"v{num}", source_path=file, num_processes=num) for num in (1, 2)]
    for manifest in found:
        del manifest["created"], manifest["name"]
    assert found[0] == found[1]
    for split in ("train", "held_out"):
        assert (tmp_path / "v1" / f"{split}.jsonl").read_bytes() == (tmp_path / "v2" / f"{split}.jsonl").read_bytes()
    funnel = {step["filter"]: step for step in found[0]["funnel"]}
    for before, after in zip(found[0]["funnel"], found[0]["funnel"][1:], strict=False):
        assert before["kept"] == after["kept"] + after["dropped"]
    assert all(sum(step["reasons"].values()) == step["dropped"] for step in found[0]["funnel"])
    assert all({one["reason"] for one in step["examples"]} == set(step["reasons"]) for step in found[0]["funnel"])
    assert funnel["difficulty"]["reasons"].keys() == {"too hard", "too easy"} and funnel["difficulty"]["noted"]["unknown pass rate"] > 0
    assert found[0]["bad_rows"]["num"] == 6


def test_the_first_bad_row_is_told_whoever_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without its field before a line that is no JSON: the reader is ahead of the mapping."""
    monkeypatch.setattr(version, "CHUNK_ROWS", 4)
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "x"}\n' * 5 + '{"q": 1}\n' + '{"prompt": "x"}\n' * 9 + "{\n")
    for num in (1, 2):
        with pytest.raises(DataError, match="Row 6 has no “prompt”"):
            prepare(PrepareConfig.parse({"source": "jsonl"}), out=tmp_path / "v", source_path=path, num_processes=num)
    assert [item.name for item in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_file_never_sits_in_memory(tmp_path: Path) -> None:
    """Peak of all that Python holds, against a file that is several times larger."""
    path = tmp_path / "in.jsonl"
    with path.open("w") as out:
        for number in range(4_000):
            out.write(json.dumps({"prompt": f"{number} " + "some words " * 370, "a": str(number)}) + "\n")
    tracemalloc.start()
    try:
        prepare(PrepareConfig.parse({"source": "jsonl", "mapping": {"answer": "a"}, "filters": [{"name": "length"}]}),
                out=tmp_path / "v", source_path=path)  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 16e6 and peak < 8e6


def test_lengths_take_little_room_and_are_nearly_exact() -> None:
    draw, lengths = random.Random(0), Lengths()
    values = sorted(int(draw.lognormvariate(7, 2)) for _ in range(30_000))
    for value in values:
        lengths.add(value)
    found = lengths.told()
    assert found is not None and found["max"] == values[-1] and found["mean"] == pytest.approx(sum(values) / len(values))
    assert found["p50"] == values[15_000] and found["p95"] == pytest.approx(values[int(0.95 * 30_000)], rel=0.002)
    assert len(lengths._counts) < 9000 and sum(num for _, num in found["histogram"]) == len(values)


def test_answers_are_exact_while_they_are_few_and_bounded_when_many(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Answers()
    for number in range(3000):
        few.add(str(number % 700 if number % 3 else 7))
    told = few.told()
    assert told["num_distinct"] == 700 and told["max_error"] == 0 and told["most_common"][0] == ["7", 1000 + 4]
    monkeypatch.setattr(statistics, "_MAX_COUNTED", 500)
    many = Answers()
    for number in range(20_000):
        many.add("often" if number % 4 == 0 else f"answer {number}")
    told = many.told()
    assert told["num_distinct"] == pytest.approx(15_001, rel=0.12) and 0 < told["max_error"] <= 20_000 / 500
    assert told["most_common"][0][0] == "often" and 5000 - told["max_error"] <= told["most_common"][0][1] <= 5000
    assert len(many._counts) <= 500


def test_lines_read_by_whoever_judges_make_the_same_version(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source in blocks against the same source row by row; and in very small blocks, with lines that are bad."""
    with file.open("ab") as out:
        out.write(b'\n   \n{"prompt": "\xff"}\n[1]\n{"prompt": "\\ud800"}\n' + b'{"prompt": "' + b"x" * (5 << 20) + b'"}\n{"prompt": "end", "a": 1}')
    found = [prepare(asked(), out=tmp_path / "whole", source_path=file)]
    monkeypatch.setattr(_lines, "BLOCK_BYTES", 300)
    found.append(prepare(asked(), out=tmp_path / "small", source_path=file))
    for name in ("blocks", "block_rows"):
        monkeypatch.delattr(Jsonl, name)
    found.append(prepare(asked(), out=tmp_path / "rows", source_path=file))
    for manifest in found:
        del manifest["created"], manifest["name"]
    assert found[0] == found[1]
    assert {reason: found[0]["bad_rows"]["reasons"].get(reason) for reason in ("not UTF-8", "not an object", "line too long")} == {
        "not UTF-8": 1, "not an object": 1, "line too long": 1}  # fmt: skip
    for manifest in found:  # rows are numbered by their lines where whoever judges reads them
        manifest["bad_rows"]["examples"] = [one for one in manifest["bad_rows"]["examples"] if not one["why"].startswith("Row ")]
    assert found[0] == found[2]
    for split in ("train", "held_out"):
        assert (tmp_path / "whole" / f"{split}.jsonl").read_bytes() == (tmp_path / "rows" / f"{split}.jsonl").read_bytes()


@pytest.mark.parametrize("num", [1, 2])
def test_rows_of_blocks_are_counted_against_the_limit(num: int, file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 100 rows"):
        prepare(asked(source_config={"max_rows": 100}), out=tmp_path / "v", source_path=file, num_processes=num)
