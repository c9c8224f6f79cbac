"""`inspect` and `prepare`: what they print and leave, whole or not at all, and what a stranger's file may not do."""

from __future__ import annotations

import errno
import gzip
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from model_core.commands import inspect as inspect_word
from model_core.config import PrepareConfig
from model_core.preparation import prepare
from model_core.sources import SOURCES, inspect_file
from tests.model_core.commands.conftest import Say

ROWS = [{"question": f"{n}+{n}?", "answer": str(2 * n), "note": None} for n in range(30)]
GENERATED = {"source": "generated", "source_config": {"num_train": 30, "num_held_out": 8}, "seed": 2}
FROM_FILE = {"source": "jsonl", "mapping": {"prompt": "question", "answer": "answer"}, "held_out_fraction": 0.2}


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What the word asks for; this process must not be bound by it."""
    asked: dict[int, Any] = {}
    monkeypatch.setattr(resource, "setrlimit", lambda what, values: asked.update({what: values}))
    return asked


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def told(directory: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((directory / "result.json").read_text())
    assert list(result) == ["status", "manifest", "error"] and (result["manifest"] is None) != (result["error"] is None)
    return result


def events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def ask(directory: Path, config: Any, source: Path | None = None) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"prepare": config, "source_path": source and str(source)}))
    return directory


def test_looking_prints_what_the_source_finds(file: Path, say: Say, limits: dict[int, Any]) -> None:
    said = say("inspect", "jsonl", file)
    assert said.status == 0 and json.loads(said.out) == {"found": inspect_file(file, "jsonl")}
    found = json.loads(said.out)["found"]
    assert found["columns"] == ["question", "answer", "note"] and found["preview"] == ROWS[: found["num_rows_seen"]]
    assert set(limits) == {resource.RLIMIT_CPU, resource.RLIMIT_AS} and all(low == high for low, high in limits.values())
    assert limits[resource.RLIMIT_AS][0] == inspect_word.MAX_MEMORY_BYTES


def test_looking_binds_itself_before_it_opens_the_file(file: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_given: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(resource, "setrlimit", refused)
    monkeypatch.setattr(inspect_word, "inspect_file", lambda *_given: pytest.fail("it was opened without limits"))
    with pytest.raises(PermissionError):
        say("inspect", "jsonl", file)


@pytest.mark.parametrize(("source", "data", "field", "words"), [
    ("jsonl", b"", "file", "no rows"), ("jsonl", b"{", "file", "Line 1"), ("jsonl", b'{"a": 1}\n\xff\n', "file", "Line 2 is not UTF-8"),
    ("jsonl", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9], "file", "breaks off"), ("spreadsheet", b"", "", "spreadsheet"),
    ("jsonl", json.dumps({"n" * 101: 1}).encode(), "file", "at most 100 characters"), ("csv", b"\0\0", "file", ""),
])  # fmt: skip
def test_what_cannot_be_looked_into_is_an_error_in_json(
    source: str, data: bytes, field: str, words: str, tmp_path: Path, say: Say
) -> None:
    (tmp_path / "file").write_bytes(data)
    said = say("inspect", source, tmp_path / "file")
    assert said.status == 2 and said.err == ""
    error = json.loads(said.out)["error"]
    assert set(error) == {"message", "field"} and error["field"] == field and words in error["message"]


def test_an_unknown_source_is_told_those_that_there_are(file: Path, say: Say) -> None:
    message = json.loads(say("inspect", "spreadsheet", file).out)["error"]["message"]
    assert all(name in message for name in SOURCES.names())


@pytest.mark.parametrize("config", [GENERATED, FROM_FILE])
def test_the_command_leaves_what_the_library_makes(config: dict[str, Any], file: Path, tmp_path: Path, say: Say) -> None:
    directory = ask(tmp_path / "version", config, file)
    assert say("prepare", directory).status == 0
    result, expected = told(directory), prepare(PrepareConfig.parse(config), out=tmp_path / "again", source_path=file)
    assert result["status"] == "succeeded" and result["manifest"] == json.loads((directory / "data" / "dataset.json").read_text())
    for name in ("sha256", "num_rows", "num_held_out", "config"):
        assert result["manifest"][name] == expected[name]
    for split in ("train", "held_out"):
        assert (directory / "data" / f"{split}.jsonl").read_bytes() == (tmp_path / "again" / f"{split}.jsonl").read_bytes()
    last = events(directory)[-1]
    assert last["kind"] == "progress" and last["payload"]["fraction"] == 1.0 and {e["kind"] for e in events(directory)} == {"progress"}
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "counts.json", "data", "events.jsonl", "result.json"]
    counts = json.loads((directory / "counts.json").read_text())
    assert counts["num_read"] == counts["num_rows"] + counts["num_held_out"] + sum(step["dropped"] for step in counts["funnel"])
    assert all(counts[name] == expected[name] for name in ("num_rows", "num_held_out", "bad_rows", "funnel"))


def test_preparing_again_gives_the_same_and_goes_on_in_its_events(tmp_path: Path, say: Say) -> None:
    directory, hashes = ask(tmp_path / "version", GENERATED), set()
    for _ in range(2):
        assert say("prepare", directory).status == 0
        hashes.add(told(directory)["manifest"]["sha256"])
    assert len(hashes) == 1 and [event["seq"] for event in events(directory)] == list(range(1, len(events(directory)) + 1))


@pytest.mark.parametrize(("config", "kind", "field", "words"), [
    ({"source": "spreadsheet"}, "UnknownName", "source", "spreadsheet"), ({}, "ConfigError", "source", "source: "),
    ({**FROM_FILE, "wrong": 1}, "ConfigError", "wrong", "no such setting"),
    ({**FROM_FILE, "filters": [{"name": "length", "config": {"max_prompt_chars": -1}}]}, "ConfigError", "filters.0.config.max_prompt_chars", "-1"),
    ({**FROM_FILE, "mapping": {"prompt": "asked"}}, "DataError", "mapping", "Row 1 has no “asked”; it has question, answer, note"),
    ({**FROM_FILE, "held_out_fraction": 1}, "ConfigError", "held_out_fraction", "1"),
    ({**FROM_FILE, "filters": [{"name": "length", "config": {"max_prompt_chars": 1}}]}, "DataError", "", "No training row is left of 30"),
])  # fmt: skip
def test_a_preparation_that_fails_leaves_its_reason_and_no_data(
    config: dict[str, Any], kind: str, field: str, words: str, file: Path, tmp_path: Path, say: Say
) -> None:
    """Not even the data that an earlier one had left, once rows are read."""
    directory = ask(tmp_path / "version", GENERATED)
    assert say("prepare", directory).status == 0
    said = say("prepare", ask(directory, config, file))
    assert said.status == 2 and said.out == ""
    result = told(directory)
    assert result["status"] == "failed" and (result["error"]["type"], result["error"]["field"]) == (kind, field)
    assert words in result["error"]["message"] and said.err == f"{kind}: {result['error']['message']}\n"
    assert not list(directory.glob("*.part")) and (kind != "DataError" or not (directory / "data").exists())


def test_a_source_that_needs_a_file_says_so(tmp_path: Path, say: Say) -> None:
    directory = ask(tmp_path / "version", FROM_FILE)
    assert say("prepare", directory).status == 2
    assert told(directory)["error"] == {"type": "DataError", "message": "The source “jsonl” needs a file.", "field": "source"}


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"prepare": []}', '{"prepare": {}, "source_path": 3}'])
def test_a_directory_that_asks_for_nothing_is_told_what_is_missing(text: str | None, tmp_path: Path, say: Say) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert say("prepare", tmp_path).status == 2
    error = told(tmp_path)["error"]
    assert error["type"] == "ConfigError" and "config.json" in error["message"]


def test_a_full_disk_is_an_error_of_the_machine_and_any_other_a_mistake(
    tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ask(tmp_path / "version", GENERATED)
    number = errno.ENOSPC

    def failing(*_given: Any, **_named: Any) -> None:
        raise OSError(number, "somewhere")

    monkeypatch.setattr("model_core.commands.prepare.prepare", failing)
    assert say("prepare", directory).status == 2
    assert told(directory)["error"]["type"] == "MachineError" and "disk is full" in told(directory)["error"]["message"]
    number = errno.EIO
    with pytest.raises(OSError, match="somewhere"):
        say("prepare", directory)


def test_what_is_not_there_is_a_sentence(tmp_path: Path, say: Say) -> None:
    said = say("inspect", "jsonl", tmp_path / "none.jsonl")
    assert said.status == 2 and "There is no file" in json.loads(said.out)["error"]["message"]
    for source in ("jsonl", "parquet", "csv"):
        assert say("inspect", source, tmp_path).status == 2
    said = say("prepare", tmp_path / "none")
    assert said.status == 2 and "There is no directory" in said.err
    directory = ask(tmp_path / "version", FROM_FILE, tmp_path / "none.jsonl")
    assert say("prepare", directory).status == 2
    assert told(directory)["error"]["field"] == "file" and "There is no file" in told(directory)["error"]["message"]


def test_a_result_of_an_earlier_time_is_gone_while_it_prepares(tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies in between must not look like one that has succeeded."""
    directory = ask(tmp_path / "version", GENERATED)
    assert say("prepare", directory).status == 0

    def dying(*_given: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model_core.commands.prepare.prepare", dying)
    with pytest.raises(KeyboardInterrupt):
        say("prepare", directory)
    assert not (directory / "result.json").exists()


def test_benchmarks_are_given_by_whoever_prepares(file: Path, tmp_path: Path, say: Say) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps({"question": ROWS[3]["question"]}) + "\n")
    asked = {**FROM_FILE, "filters": [{"name": "contamination", "config": {"text": "prompt", "min_words": 1}}]}
    directory = ask(tmp_path / "version", asked, file)
    assert say("prepare", directory).status == 2 and "not at hand" in told(directory)["error"]["message"]
    stored = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**stored, "benchmarks": {"own": str(tmp_path / "own.jsonl")}}))
    assert say("prepare", directory).status == 0
    step = told(directory)["manifest"]["funnel"][0]
    assert step["reasons"] == {"in own": 1} and step["examples"][0]["row"]["prompt"] == ROWS[3]["question"]
