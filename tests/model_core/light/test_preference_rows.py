"""Rows with two answers: mapped by field from texts and chats, counted, filtered by each of their texts, refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_core.config import MappingConfig, PrepareConfig
from model_core.data.dataset import read_rows
from model_core.errors import ConfigError, DataError
from model_core.filters import FILTERS
from model_core.preparation import mapped, prepare
from model_core.preparation.pairs import why_dropped, with_both
from model_core.sources._bad import BadRow

MAPPING = {"chosen": "good", "rejected": "bad"}
ASKED = MappingConfig.parse(MAPPING)


def said(*turns: str, first: str = "user") -> list[dict[str, str]]:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]


def pair(prompt: Any = "q", good: Any = "yes", bad: Any = "no", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "good": good, "bad": bad, **more}


@pytest.mark.parametrize("raw", [
    pair(), pair(good=said("q", "yes"), bad=said("q", "no")), pair(good=said("yes", first="assistant"), bad=said("no", first="assistant")),
    pair(said("q"), said("yes", first="assistant"), said("no", first="assistant")), pair(None, said("q", "yes"), said("q", "no")),
])  # fmt: skip
def test_texts_and_chats_of_every_form_are_the_same_row(raw: dict[str, Any]) -> None:
    row = mapped(raw, ASKED, 1)
    assert (row["prompt"], row["chosen"], row["rejected"], row["completion"]) == ("q", "yes", "no", None)


def test_a_longer_chat_is_a_prompt_as_elsewhere() -> None:
    before = said("q", "what?", "this")
    row = mapped(pair(None, [*before, *said("yes", first="assistant")], [*before, *said("no", first="assistant")]), ASKED, 1)
    assert row["prompt"] == "User: q\n\nAssistant: what?\n\nUser: this" and (row["chosen"], row["rejected"]) == ("yes", "no")


@pytest.mark.parametrize(("raw", "reason"), [
    ({"prompt": "q", "good": "yes"}, "no “bad”"), (pair(good=""), "no “good”"), (pair(good=None), "no “good”"), (pair(prompt=" "), "no “prompt”"),
    (pair(good="no"), "chosen and rejected are the same"), (pair(good=said("q", "yes"), bad=said("p", "no")), "two prompts"),
    (pair(good=said("q", "yes")), "no list of messages"), (pair(good=said("q"), bad=said("q")), "no answer in the chat"),
    (pair(good={"a": 1}, bad="no"), "“good” is no text"), (pair(None, said("yes", first="assistant"), said("no", first="assistant")), "no “prompt”"),
])  # fmt: skip
def test_what_is_no_pair_is_bad_with_a_reason(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as refused:
        mapped(raw, ASKED, 7)
    assert refused.value.reason == reason and "7" in refused.value.message


def test_rows_without_a_pair_are_as_they_were() -> None:
    assert "chosen" not in mapped({"prompt": "q"}, MappingConfig(), 1)


def config(**values: Any) -> PrepareConfig:
    return PrepareConfig.parse({"source": "jsonl", "mapping": MAPPING, **values})


def prepared(folder: Path, rows: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare(config(**values), out=folder / "v", source_path=path)


def test_a_version_holds_and_counts_them(tmp_path: Path) -> None:
    rows = [pair(f"q{number}", "yes" * (number + 1), "no") for number in range(9)]
    manifest = prepared(tmp_path, [*rows, {"prompt": "x", "good": "y"}], held_out_fraction=0.0, on_bad_row="skip")
    found = read_rows(tmp_path / "v", "train")
    assert [(row.prompt, row.chosen, row.rejected, row.completion) for row in found] == [(r["prompt"], r["good"], r["bad"], None) for r in rows]
    told = manifest["statistics"]
    assert told["num_pairs"] == 9 and told["chosen_chars"]["max"] == 27 and told["rejected_chars"]["mean"] == 2
    assert told["completion_chars"] is None and manifest["bad_rows"]["reasons"] == {"no “bad”": 1}


def test_parquet_and_chats_give_what_json_lines_give(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [pair(f"q{number}", said(f"q{number}", "yes"), said(f"q{number}", "no")) for number in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")  # type: ignore[no-untyped-call]
    other = prepare(config(source="parquet"), out=tmp_path / "p", source_path=tmp_path / "in.parquet")
    assert other["sha256"] == prepared(tmp_path, rows)["sha256"]


# filters


@pytest.mark.parametrize("which", ["chosen", "rejected"])
def test_a_filter_judges_each_answer(tmp_path: Path, which: str) -> None:
    long = {"chosen": "good", "rejected": "bad"}[which]
    rows = [pair(f"q{number}", **({long: "x" * 50} if number < 2 else {})) for number in range(6)]
    manifest = prepared(tmp_path, rows, filters=[{"name": "length", "config": {"max_completion_chars": 40}}])
    (told,) = manifest["funnel"]
    assert (told["kept"], told["dropped"]) == (4, 2) and told["examples"][0]["why"].startswith(f"{which}: ")


def test_what_a_filter_rewrites_goes_back_to_its_answer(tmp_path: Path) -> None:
    kept = "This is a line that ends well."
    rows = [pair(f"q{number}", f"{kept}\nno end here", f"{kept} So is that.") for number in range(3)]
    manifest = prepared(tmp_path, rows, held_out_fraction=0.0, filters=[{"name": "c4", "config": {"text": "completion", "min_sentences": 1}}])
    assert {(row.chosen, row.rejected) for row in read_rows(tmp_path / "v", "train")} == {(kept, f"{kept} So is that.")}
    assert manifest["funnel"][0]["rewritten"] == 3


def test_a_note_counts_the_row_once() -> None:
    """Both answers are too short for their language to be told."""
    cls = FILTERS.get("language")
    step = cls(cls.Config.parse({"text": "completion"}))
    for number in range(3):
        assert why_dropped(step, {**mapped(pair(f"q{number}"), ASKED, 1)}) is None
    assert step.noted == {"unknown language": 3}


def test_a_filter_that_remembers_sees_all_that_was_answered() -> None:
    row = mapped(pair(), ASKED, 1)
    assert with_both(row)["completion"] == "yes\nno" and row["completion"] is None
    plain = mapped({"prompt": "q"}, MappingConfig(), 1)
    assert with_both(plain) is plain


def test_pairs_that_share_a_prompt_are_duplicates_of_it_alone(tmp_path: Path) -> None:
    rows = [pair(), pair(bad="never"), pair()]
    for text, kept in (("prompt", 1), ("all", 2), ("completion", 2)):
        folder = tmp_path / text
        folder.mkdir()
        manifest = prepared(folder, rows, held_out_fraction=0.0, filters=[{"name": "exact_duplicates", "config": {"text": text}}])
        assert manifest["num_rows"] == kept


@pytest.mark.parametrize("name", FILTERS.names())
def test_a_filter_that_cannot_judge_pairs_says_so_when_it_is_chosen(name: str) -> None:
    needs = getattr(FILTERS.get(name), "needs_answer", False)
    assert needs == (name == "answer_verifiable")
    if not needs:
        config(filters=[{"name": name}])
        return
    with pytest.raises(ConfigError, match="would drop them all") as refused:
        config(filters=[{"name": "length"}, {"name": name}])
    assert refused.value.field == "filters.1.name"
    config(mapping={**MAPPING, "answer": "answer"}, filters=[{"name": name}])


@pytest.mark.parametrize(("mapping", "words"), [
    ({"chosen": "good"}, "belong together"), ({"rejected": "bad"}, "belong together"), ({"chosen": "x", "rejected": "x"}, "the same field"),
    ({**MAPPING, "messages": "chat"}, "a chat with one answer"),
])  # fmt: skip
def test_a_mapping_that_means_no_pair_is_refused(mapping: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MappingConfig.parse(mapping)


@pytest.mark.parametrize("line", ['{"prompt": "q", "chosen": "a"}', '{"prompt": "q", "chosen": "a", "rejected": 3}', '{"prompt": "q", "chosen": 1, "rejected": 2}'])
def test_half_a_pair_in_a_version_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="line 1: chosen and rejected must be two texts"):
        read_rows(tmp_path, "train")
