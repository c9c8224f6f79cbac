"""A version is whole or absent, the same for the same input, and says what it dropped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from model_core.__main__ import main
from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation import mapped, prepare, split_of

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
GSM8K_MAPPING = {"prompt": "question", "completion": "answer", "answer_pattern": r"####\s*(.+)$"}


def config(**values: Any) -> PrepareConfig:
    return PrepareConfig.parse(values)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_generated_version_has_what_was_asked_for_and_a_stable_hash(tmp_path: Path) -> None:
    asked = config(source="generated", source_config={"num_train": 200, "num_held_out": 50}, seed=4)
    first = prepare(asked, out=tmp_path / "a")
    second = prepare(asked, out=tmp_path / "b")
    assert (first["num_rows"], first["num_held_out"]) == (200, 50)
    assert first["sha256"] == second["sha256"]
    assert prepare(asked.model_copy(update={"seed": 5}), out=tmp_path / "c")["sha256"] != first["sha256"]
    assert len((tmp_path / "a" / "train.jsonl").read_text().splitlines()) == 200


def test_filters_count_and_show_what_they_drop(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i % 40}", "answer": str(i)} for i in range(60)] + [{"prompt": "x" * 500, "answer": "1"}]
    asked = config(
        source="jsonl", mapping={"answer": "answer"}, held_out_fraction=0.2,
        filters=[{"name": "length", "config": {"max_prompt_chars": 100}}, {"name": "exact_duplicates"}],
    )  # fmt: skip
    manifest = prepare(asked, out=tmp_path / "v", source_path=write(tmp_path / "in.jsonl", rows))
    length, duplicates = manifest["funnel"]
    assert (length["kept"], length["dropped"]) == (60, 1) and "500 characters" in length["examples"][0]["why"]
    assert (duplicates["kept"], duplicates["dropped"]) == (40, 20)
    assert manifest["num_rows"] + manifest["num_held_out"] == 40 and manifest["num_held_out"] > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "No training row"),
        (b"{broken\n", "Line 1 is not JSON"),
        (b"[1, 2]\n", "Line 1 is a list"),
        (b'{"prompt": "\xff"}\n', "Line 1 is not UTF-8"),
        (b'{"question": "x"}\n', "Row 1 has no “prompt”; it has question"),
        (gzip.compress(b'{"prompt": "x"}\n' * 1000, mtime=0)[:-20], "breaks off"),
    ],
)
def test_broken_input_is_named_and_leaves_nothing(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        prepare(config(source="jsonl"), out=tmp_path / "v", source_path=path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in"]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.gz"
    path.write_bytes(gzip.compress((b'{"prompt": "' + b"x" * 1000 + b'"}\n') * 20_000))
    with pytest.raises(DataError, match="unpacks to more than"):
        prepare(config(source="jsonl"), out=tmp_path / "v", source_path=path)


def test_answer_is_taken_out_of_a_gsm8k_completion() -> None:
    asked = config(source="jsonl", mapping=GSM8K_MAPPING).mapping
    row = mapped({"question": "How many?", "answer": "48/2 = <<48/2=24>>24\n#### 24"}, asked, 1)
    assert row["answer"] == "24" and row["completion"] == "<think>48/2 = <<48/2=24>>24</think>24"


def test_split_is_a_function_of_the_prompt() -> None:
    prompts = [f"p{i}" for i in range(2000)]
    held = [split_of(prompt, 0.1) == "held_out" for prompt in prompts]
    assert held == [split_of(prompt, 0.1) == "held_out" for prompt in prompts] and 140 < sum(held) < 260
    assert not any(split_of(prompt, 0.0) == "held_out" for prompt in prompts)


@pytest.mark.skipif(not GSM8K.exists(), reason="the real GSM8K is not beside the project")
def test_real_gsm8k_goes_through(tmp_path: Path) -> None:
    asked = config(source="jsonl", mapping=GSM8K_MAPPING, filters=[{"name": "exact_duplicates"}])
    manifest = prepare(asked, out=tmp_path / "v", source_path=GSM8K)
    assert manifest["num_rows"] + manifest["num_held_out"] + manifest["funnel"][0]["dropped"] == 7473


@pytest.mark.parametrize(("content", "field", "words"), [
    ("[]", "", "must be an object"), ('{"prepare": 3}', "", "must be an object"),
    (json.dumps({"prepare": {"source": "generated", "source_config": {
        "num_train": 100, "task_config": {"num_digits": 1, "story_fraction": 0}}}}), "source_config.num_held_out", "only"),
])
def test_what_cannot_be_prepared_is_said_in_the_result(tmp_path: Path, content: str, field: str, words: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert main(["prepare", str(tmp_path)]) == 2
    error = json.loads((tmp_path / "result.json").read_text())["error"]
    assert error["type"] == "ConfigError" and error["field"] == field and words in error["message"]
