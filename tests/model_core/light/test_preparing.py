"""A version holds each row that came through, in order, in the split of its prompt; its manifest counts what the files hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.config import MappingConfig, PrepareConfig
from model_core.data.dataset import read_rows
from model_core.errors import ConfigError, DataError, UnknownName
from model_core.preparation import SPLITS, mapped, prepare, split_of
from model_core.preparation.funnel import NUM_EXAMPLES
from model_core.preparation.statistics import NUM_BINS, Lengths
from model_core.sources import _lines

WORDS = st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc"]), min_size=1, max_size=12)


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(**values: Any) -> PrepareConfig:
    return PrepareConfig.parse({"source": "jsonl", "mapping": {"answer": "answer", "completion": "why"}, **values})


def questions(num: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {number} and {number}?", "why": "because", "answer": str(2 * number), **more} for number in range(num)]


def test_what_was_prepared_is_what_is_read(tmp_path: Path) -> None:
    rows = questions(300)
    manifest = prepare(config(held_out_fraction=0.3), out=tmp_path / "v", source_path=written(tmp_path, rows))
    for split in SPLITS:
        expected = [row for row in rows if split_of(row["prompt"], 0.3) == split]
        found = read_rows(tmp_path / "v", split)
        assert [(row.prompt, row.completion, row.answer) for row in found] == [
            (row["prompt"], f"<think>because</think>{row['answer']}", row["answer"]) for row in expected]
        assert len(found) == manifest["num_rows" if split == "train" else "num_held_out"]
    assert json.loads((tmp_path / "v" / "dataset.json").read_text()) == json.loads(json.dumps(manifest))
    assert manifest["name"] == "v" and manifest["task"] == "" and PrepareConfig.parse(manifest["config"]) == config(held_out_fraction=0.3)


def test_the_hash_tells_the_rows_their_order_and_their_split(tmp_path: Path) -> None:
    def prepared(name: str, rows: list[dict[str, Any]], **values: Any) -> str:
        sha256: str = prepare(config(**values), out=tmp_path / name, source_path=written(tmp_path, rows))["sha256"]
        return sha256

    rows = questions(30)
    first = prepared("a", rows)
    assert first == prepared("b", [{**row, "unused": 1} for row in rows])
    others = [prepared("c", rows[::-1]), prepared("d", rows[1:]), prepared("e", rows, held_out_fraction=0.6), prepared("f", questions(30, why="so"))]
    assert len({first, *others}) == 5


def test_the_funnel_adds_up_and_shows_a_few_examples_cut_short(tmp_path: Path) -> None:
    rows = [*questions(40), *questions(20), {"prompt": "long " * 400, "why": "x", "answer": "y" * 400}, *questions(3, why="z" * 50)]
    steps = [{"name": "length", "config": {"max_prompt_chars": 100, "max_completion_chars": 40}}, {"name": "exact_duplicates"}]
    manifest = prepare(config(filters=steps), out=tmp_path / "v", source_path=written(tmp_path, rows))
    length, duplicates = manifest["funnel"]
    assert length["kept"] + length["dropped"] == len(rows) and length["dropped"] == 4
    assert duplicates["kept"] + duplicates["dropped"] == length["kept"]
    assert duplicates["kept"] == manifest["num_rows"] + manifest["num_held_out"] == 40
    assert len(duplicates["examples"]) == NUM_EXAMPLES and {example["why"] for example in duplicates["examples"]} == {"the same prompt came before"}
    assert max(len(value) for example in length["examples"] for value in example["row"].values()) == 300
    assert manifest["statistics"]["answers"]["num_distinct"] == 40


def test_the_work_is_told_and_ends_at_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(_lines, "BLOCK_BYTES", 5000)
    prepare(config(), out=tmp_path / "v", source_path=written(tmp_path, questions(2500)), on_progress=lambda *item: told.append(item))
    numbers = [int(words.removesuffix(" rows")) for _, words in told[:-1]]
    assert len(numbers) > 20 and numbers == sorted(numbers) and numbers[-1] == 2500 and told[-1][0] == 1.0
    told.clear()
    asked = PrepareConfig.parse({"source": "generated", "source_config": {"num_train": 900, "num_held_out": 300}})
    manifest = prepare(asked, out=tmp_path / "g", on_progress=lambda *item: told.append(item))
    assert [fraction for fraction, _ in told] == [500 / 1200, 1000 / 1200, 1.0] and manifest["task"] == "sums"


def test_a_version_is_not_written_twice_and_a_remainder_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "v.part").mkdir()
    (tmp_path / "v.part" / "train.jsonl").write_text("half")
    path = written(tmp_path, questions(5))
    prepare(config(held_out_fraction=0.0), out=tmp_path / "v", source_path=path)
    before = hashlib.sha256((tmp_path / "v" / "train.jsonl").read_bytes()).digest()
    with pytest.raises(DataError, match="immutable"):
        prepare(config(), out=tmp_path / "v", source_path=path)
    assert hashlib.sha256((tmp_path / "v" / "train.jsonl").read_bytes()).digest() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "v"]


def test_whatever_interrupts_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_fraction: float, _words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config(), out=tmp_path / "v", source_path=written(tmp_path, questions(1000)), on_progress=interrupt)
    assert [item.name for item in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(("values", "rows", "error", "words"), [
    ({}, [{"prompt": "x", "why": "y"}], DataError, "Row 1 has no “answer”; it has prompt, why"),
    ({"filters": [{"name": "length", "config": {"min_prompt_chars": 500}}]}, questions(7), DataError, "No training row is left of 7"),
    ({"source": "generated"}, [], ConfigError, "no such setting"),
])
def test_what_cannot_become_a_version_is_said(
    values: dict[str, Any], rows: list[dict[str, Any]], error: type[Exception], words: str, tmp_path: Path
) -> None:
    if error is ConfigError:
        asked = config().model_copy(update={"source": "generated", "source_config": {"magic": 1}})
    else:
        asked = config(**values)
    with pytest.raises(error, match=words):
        prepare(asked, out=tmp_path / "v", source_path=written(tmp_path, rows))
    assert not list(tmp_path.glob("v*"))


def test_a_source_of_files_needs_one_and_a_filter_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="“jsonl” needs a file") as refused:
        prepare(config(), out=tmp_path / "v")
    assert refused.value.field == "source" and not list(tmp_path.iterdir())
    with pytest.raises(UnknownName, match=r"There are: .*exact_duplicates, .*length"):
        config(filters=[{"name": "length"}, {"name": "magic"}])


# mapping


@settings(deadline=None)
@given(WORDS, WORDS, WORDS)
def test_a_pattern_takes_the_answer_out_of_the_completion(prompt: str, why: str, answer: str) -> None:
    asked = MappingConfig(prompt="q", completion="c", answer_pattern=r"\n#### (.+)$")
    row = mapped({"q": prompt, "c": f"{why}\n#### {answer}"}, asked, 1)
    assert row == {"prompt": prompt, "completion": f"<think>{why}</think>{answer}", "answer": answer, "task": "", "meta": {}}


@pytest.mark.parametrize(("raw", "mapping", "completion", "answer"), [
    ({"p": "q"}, {}, None, None), ({"p": "q", "a": 5}, {"answer": "a"}, None, "5"), ({"p": "q", "c": "so"}, {"completion": "c"}, "so", None),
    ({"p": "q", "c": "<think>so</think>5", "a": "5"}, {"completion": "c", "answer": "a"}, "<think>so</think>5", "5"),
    ({"p": "q", "c": "so", "a": 0}, {"completion": "c", "answer": "a"}, "<think>so</think>0", "0"),
    ({"p": "q", "c": "so #5", "a": 6}, {"completion": "c", "answer": "a", "answer_pattern": r"#(\d)"}, "<think>so #5</think>6", "6"),
])
def test_fields_are_read_as_text_and_a_stated_answer_goes_before_a_pattern(
    raw: dict[str, Any], mapping: dict[str, str], completion: str | None, answer: str | None
) -> None:
    row = mapped(raw, MappingConfig(prompt="p", **mapping), 1)
    assert (row["prompt"], row["completion"], row["answer"]) == ("q", completion, answer)


@pytest.mark.parametrize(("raw", "words", "field"), [
    ({}, "Row 9 has no “p”; it has no field", "mapping"), ({"p": None, "x": 1}, "no “p”; it has p, x", "mapping"),
    ({"p": " \n"}, "no “p”", "mapping"), ({"p": ["q"]}, "“p” is a list, not text", "mapping"), ({"p": {}}, "“p” is a dict", "mapping"),
    ({"p": "q", "c": "no answer here"}, "answer_pattern '#(.)' finds nothing", "mapping.answer_pattern"),
])
def test_a_row_that_does_not_fit_is_named(raw: dict[str, Any], words: str, field: str) -> None:
    asked = MappingConfig(prompt="p", completion="c" if "c" in raw else "", answer_pattern="#(.)")
    with pytest.raises(DataError) as refused:
        mapped(raw, asked, 9)
    assert words in refused.value.message and refused.value.field == field


# split and statistics


@settings(deadline=None)
@given(st.text(max_size=20), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_larger_share_holds_out_more_and_never_gives_back(prompt: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert split_of(prompt, high) == "held_out" or split_of(prompt, low) == "train"
    assert split_of(prompt, 0.0) == "train"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=80))
def test_a_histogram_counts_every_value_in_few_bins(values: list[int]) -> None:
    """Exactly, up to 4,096; of longer texts the ten highest bits are counted, and of all their mean and greatest."""
    lengths = Lengths()
    for value in values:
        lengths.add(value)
    found, counted = lengths.told(), [value if value < 4096 else value // 8 * 8 for value in values]
    assert found is not None
    starts, counts = zip(*found["histogram"], strict=True)
    assert sum(counts) == len(values) and len(counts) <= NUM_BINS and starts[0] == min(counted)
    ends = [*starts[1:], max(values) + 1]
    assert list(counts) == [sum(start <= value < end for value in counted) for start, end in zip(starts, ends, strict=True)]
    assert found["max"] == max(values) and found["mean"] == pytest.approx(sum(values) / len(values))
    ordered = sorted(counted)
    assert found["p50"] == ordered[len(values) // 2] and found["p95"] == ordered[int(len(values) * 0.95)]


def test_nothing_has_no_distribution() -> None:
    assert Lengths().told() is None
