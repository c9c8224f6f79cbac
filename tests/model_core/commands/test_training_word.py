"""`train` before it trains: what ends it at once, what it leaves then, and when it becomes DeepSpeed's launcher."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from model_core import launch
from model_core.config import RunConfig, RunPaths
from model_core.rundir import COMPLETE, RunDir
from tests.model_core.commands.conftest import Say

RUN: dict[str, Any] = {"phase": "cold_start"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank of anything."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def made(path: Path, **run: Any) -> RunDir:
    return RunDir.create(path / "run", run=RunConfig.parse({**RUN, **run}), paths=RunPaths())


def told(rundir: RunDir, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in rundir.events.read_text().splitlines()]
    return [line["payload"] for line in lines if line["kind"] == kind]


def test_a_place_that_is_no_directory_is_a_sentence_and_stays_none(tmp_path: Path, say: Say) -> None:
    said = say("train", tmp_path / "nowhere")
    assert said.status == 2 and said.out == "" and "nowhere has no config.json: it is not a run directory" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("text", "field", "words"), [
    (None, "", "has no config.json"), ("{", "", "is not valid JSON"), ("[]", "", "must be an object"),
    ('{"run": 3}', "", "must be an object"), ('{"run": {"phase": "dance"}}', "phase", "dance"), ("{}", "phase", "phase: "),
    ('{"run": {"phase": "cold_start", "seed": "1"}}', "seed", "'1'"),
    ('{"run": {"phase": "cold_start", "model": {"hidden_size": 0}}}', "model.hidden_size", "0"),
    ('{"run": {"phase": "cold_start"}, "paths": {"datasett": "/x"}}', "paths.datasett", "no such setting"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_is_the_result_of_the_run(
    text: str | None, field: str, words: str, tmp_path: Path, say: Say
) -> None:
    """In result.json, as an event, and in one line for who started it by hand."""
    rundir = RunDir(tmp_path)
    if text is not None:
        rundir.config.write_text(text)
    said = say("train", tmp_path)
    result = rundir.read_result()
    assert said.status == 2 and result is not None and result["status"] == "failed" and result["ended_by"] == "error"
    error = result["error"]
    assert error["field"] == field and words in error["message"] == result["reason"]
    assert said.err == f"{error['type']}: {error['message']}\n"
    (event,) = told(rundir, "error")
    assert {name: event[name] for name in error} == error and (event["rank"], event["stage"], event["step"]) == (0, "loading", 0)
    assert told(rundir, "finished") == [result] and result["steps"] == 0 and result["final_checkpoint"] is None
    assert all(result[name] is None for name in result if name.startswith(("accuracy", "quality"))), "nothing was measured"


def test_a_configuration_that_is_no_text_is_the_result_too(tmp_path: Path, say: Say) -> None:
    rundir = RunDir(tmp_path)
    rundir.config.write_bytes(b"\xff\xfe")
    said = say("train", tmp_path)
    result = rundir.read_result()
    assert said.status == 2 and "is not valid JSON in UTF-8" in said.err and "Traceback" not in said.err
    assert result is not None and result["error"]["type"] == "ConfigError"


@pytest.mark.parametrize("status", ["succeeded", "failed", "stopped"])
@pytest.mark.parametrize("num_checkpoints", [0, 2])
def test_a_run_that_has_ended_is_not_trained_again(status: str, num_checkpoints: int, tmp_path: Path, say: Say) -> None:
    """The sentence says how to go on from it."""
    rundir = made(tmp_path)
    for step in range(num_checkpoints):
        rundir.checkpoint(step).mkdir()
        (rundir.checkpoint(step) / COMPLETE).touch()
    rundir.result.write_text(json.dumps({"status": status}))
    said = say("train", rundir.path)
    assert said.status == 2 and said.err.startswith("ConfigError (paths.resume_from): ") and f"has ended ({status}" in said.err
    assert (f'resume_from = "{rundir.checkpoint(1)}"' if num_checkpoints else "resume_from = a checkpoint") in said.err
    assert rundir.read_result() == {"status": status} and not rundir.events.exists(), "it is left as it was"


def test_a_failure_is_an_end_too(tmp_path: Path, say: Say) -> None:
    rundir = RunDir(tmp_path)
    rundir.config.write_text("{")
    assert say("train", tmp_path).status == 2
    first = rundir.result.read_bytes()
    rundir.config.write_text(json.dumps({"run": RUN}))
    assert "has ended (failed" in say("train", tmp_path).err and rundir.result.read_bytes() == first


def test_for_several_processes_it_becomes_the_launcher(tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    class Became(Exception):
        """The process is another program now."""

    def execve(path: str, argv: list[str], env: dict[str, str]) -> None:
        raise Became(path, argv, env)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(launch, "free_port", lambda: 12345)
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    rundir = made(tmp_path, parallel={"num_processes": 2})
    with pytest.raises(Became) as caught:
        say("train", rundir.path)
    path, argv, env = caught.value.args
    assert argv == launch.command(rundir.path, num_processes=2) and path == argv[0]
    assert launch.environment(num_processes=2).items() <= env.items() and env["SOMETHING_ELSE"] == "kept"
    assert not rundir.events.exists() and rundir.read_result() is None, "the ranks tell their story"


def test_only_the_first_rank_tells_of_a_broken_configuration(tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank says it to its own output and ends with the same status."""
    monkeypatch.setenv("RANK", "1")
    rundir = RunDir(tmp_path)
    rundir.config.write_text("{")
    said = say("train", tmp_path)
    assert said.status == 2 and "is not valid JSON" in said.err
    assert rundir.read_result() is None and not rundir.events.exists()
