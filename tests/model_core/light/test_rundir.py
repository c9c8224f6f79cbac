"""A run directory says what a run is, whole or not at all, and which checkpoints are whole."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.config import RunConfig, RunPaths
from model_core.errors import ConfigError, UnknownName
from model_core.phases import PHASES
from model_core.rundir import COMPLETE, RunDir, write_json
from tests.model_core.file_limit import file_limit

PATHS = RunPaths(dataset="/data/ü", start_from="/c/step_1")


def made(path: Path, **values: Any) -> RunDir:
    return RunDir.create(path, run=RunConfig.parse({"phase": "cold_start", **values}), paths=PATHS)


@pytest.mark.parametrize("phase", PHASES.names())
def test_what_is_created_is_loaded(phase: str, tmp_path: Path) -> None:
    config = RunConfig.parse({"phase": phase, "seed": 7, "model": "small"})
    RunDir.create(tmp_path / "a" / "run", run=config, paths=PATHS)
    assert RunDir(str(tmp_path / "a" / "run")).load() == (config, PATHS)
    assert sorted(item.name for item in (tmp_path / "a" / "run").iterdir()) == ["checkpoints", "config.json", "samples"]


def test_a_directory_is_one_run(tmp_path: Path) -> None:
    made(tmp_path, seed=1)
    with pytest.raises(ConfigError, match="already holds a run"):
        made(tmp_path, seed=2)
    assert RunDir(tmp_path).load()[0].seed == 1


@pytest.mark.parametrize(("content", "words", "field"), [
    (None, "has no config.json", ""), ("", "is not valid JSON", ""), ('{"run": ', "is not valid JSON", ""), ("null", "must be an object", ""),
    ('{"run": {"phase": "cold_start", "seed": -1}}', "greater than or equal to 0", "seed"),
    ('{"run": {"phase": "cold_start"}, "paths": {"dataset": 3}}', "valid string", "paths.dataset"),
    ('{"run": {"phase": "cold_start"}, "paths": {"magic": "x"}}', "no such setting.*dataset.*start_from", "paths.magic"),
    ("{}", "Field required", "phase"),
])
def test_a_config_that_cannot_be_read_is_said(content: str | None, words: str, field: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=words) as refused:
        RunDir(tmp_path).load()
    assert refused.value.field == field


@pytest.mark.parametrize("data", [b"\xff\xfe", b'{"run": "\xe4"}', b'{"run": ' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_a_config_that_is_no_json_in_utf8_is_said(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ConfigError, match="is not valid JSON in UTF-8"):
        RunDir(tmp_path).load()


def test_a_place_that_is_no_run_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "config.json").mkdir()
    for place, words in ((tmp_path / "file", "not a run directory"), (tmp_path / "gone", "not a run directory"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            RunDir(place).load()
        assert RunDir(place).read_result() is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_the_locale_changes_no_file(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(tmp_path / "before")
    monkeypatch.setattr("io.text_encoding", lambda given, _level=2: given or encoding)
    assert before.load()[1] == PATHS
    assert made(tmp_path / "then").config.read_bytes() == before.config.read_bytes()


def test_an_unknown_phase_in_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"run": {"phase": "magic"}}')
    with pytest.raises(UnknownName, match="cold_start"):
        RunDir(tmp_path).load()


def test_only_whole_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    assert rundir.complete_checkpoints() == []
    for step in (12, 3, 10_000_000, 100):
        rundir.checkpoint(step).mkdir(parents=True)
        if step != 100:
            (rundir.checkpoint(step) / COMPLETE).touch()
    (rundir.checkpoints / "part_00000200").mkdir()
    (rundir.checkpoints / "part_00000200" / COMPLETE).touch()
    (rundir.checkpoint(300) / COMPLETE).mkdir(parents=True)
    assert rundir.complete_checkpoints() == [rundir.checkpoint(step) for step in (3, 12, 10_000_000)]
    assert rundir.checkpoint(12).name == "step_00000012"


def test_asking_to_stop_twice_is_asking_once_and_there_is_no_result_before_the_end(tmp_path: Path) -> None:
    rundir = made(tmp_path)
    assert rundir.read_result() is None and not rundir.stop.exists()
    rundir.ask_to_stop("the budget is spent")
    rundir.ask_to_stop("a person asked")
    assert rundir.stop.read_text() == "a person asked"
    write_json(rundir.result, {"status": "succeeded", "step": 3})
    assert rundir.read_result() == {"status": "succeeded", "step": 3}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé\u2028", max_size=4), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON)
def test_json_comes_back(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == value
    assert [item.name for item in tmp_path.iterdir()] == ["value.json"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, ended, seen = tmp_path / "value.json", threading.Event(), set[int]()
    write_json(path, [0] * 5000)

    def read() -> None:
        is_last = False
        while not is_last:
            is_last = ended.is_set()
            value = json.loads(path.read_text())
            assert len(value) == 5000 and len(set(value)) == 1
            seen.add(value[0])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 40):
        write_json(path, [number] * 5000)
    ended.set()
    reader.join()
    assert 39 in seen and json.loads(path.read_text())[0] == 39


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    with file_limit(1000), pytest.raises(OSError):
        write_json(path, {"new": "x" * 5000})
    assert json.loads(path.read_text()) == {"old": 1}
