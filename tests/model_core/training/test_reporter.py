"""What a trainer says and who says it: the first rank only, in numbers that go on, with a log that people can read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_core.config import RunConfig, RunPaths
from model_core.errors import CheckpointError
from model_core.events import KINDS
from model_core.rundir import RunDir
from model_core.training.background import Background
from model_core.training.reporter import Reporter, versions
from model_core.training.saving import TRAINER, Counters, read_trainer
from model_core.training.telling import Teller
from tests.model_core.file_limit import file_limit


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", run=RunConfig(phase="cold_start"), paths=RunPaths())


@pytest.fixture
def first(rundir: RunDir) -> Iterator[Reporter]:
    reporter = Reporter(rundir, is_first=True)
    yield reporter
    reporter.close()


def lines(rundir: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rundir.events.read_text().splitlines()]


def test_others_than_the_first_rank_only_remember_where_they_are(rundir: RunDir) -> None:
    other = Reporter(rundir, is_first=False)
    other.stage("measuring", 4)
    other.progress("updating", 5, 10, seconds=1.0)
    other.last_words("warning", message="x")
    other.close()
    assert (other.at_stage, other.at_step) == ("measuring", 5) and not rundir.events.exists()


@pytest.mark.parametrize(("values", "fraction", "remaining"), [
    ({"seconds": 30.0}, 0.25, 90.0), ({"seconds": 30.0, "fraction": 0.75}, 0.75, 10.0), ({"seconds": 0.0, "fraction": 1.0}, 1.0, 0.0),
    ({"seconds": 30.0, "began_at": 0.125}, 0.25, 180.0), ({"seconds": 30.0, "began_at": 0.25}, 0.25, None),
    ({"seconds": 1.0, "fraction": 0.0}, 0.0, None),
])
def test_what_is_left_is_judged_by_what_this_attempt_did(
    first: Reporter, rundir: RunDir, values: dict[str, float], fraction: float, remaining: float | None
) -> None:
    first.progress("updating", 3, 12, **values)
    payload = lines(rundir)[-1]["payload"]
    assert payload["fraction"] == fraction and payload["remaining_seconds"] == pytest.approx(remaining)
    assert (payload["step"], payload["total"], first.at_step) == (3, 12, 3)


def test_an_attempt_in_the_same_directory_goes_on_in_the_same_numbers(rundir: RunDir) -> None:
    for _ in range(2):
        reporter = Reporter(rundir, is_first=True)
        reporter.stage("loading", 0)
        reporter.emit("warning", message="w")
        reporter.close()
    assert [line["seq"] for line in lines(rundir)] == [1, 2, 3, 4]
    assert [line["kind"] for line in lines(rundir)] == ["stage", "warning"] * 2


def test_last_words_on_a_full_disk_are_no_second_error_and_others_are(first: Reporter, rundir: RunDir) -> None:
    first.emit("warning", message="a")
    with file_limit(rundir.events.stat().st_size + 5):
        first.last_words("error", type="X", message="b")
        with pytest.raises(OSError, match="bytes of an event"):
            first.emit("warning", message="c")
    first.emit("warning", message="d")
    assert [(line["seq"], line["payload"]["message"]) for line in lines(rundir)] == [(1, "a"), (2, "d")]


def test_the_clock_is_that_of_the_trainer(first: Reporter) -> None:
    began = first.process_seconds
    first.started -= 100
    assert 100 <= first.process_seconds - began < 160 and first.at_stage == "loading"


def test_the_versions_that_decide_the_numbers_are_known() -> None:
    assert set(versions()) == {"python", "torch", "deepspeed", "transformers", "tokenizers"} and all(versions().values())


@pytest.mark.parametrize(("kind", "payload", "words"), [
    ("started", {"phase": "cold_start", "num_processes": 2, "device": "cpu", "num_parameters": 1234567, "num_active_parameters": 9},
     "cold_start on 2 process(es), cpu: 1,234,567 parameters, 9 active"),
    ("stage", {"stage": "measuring", "step": 4}, "measuring at step 4"),
    ("checkpoint", {"step": 4, "path": "checkpoints/x", "size_bytes": 1_260_000}, "checkpoint of step 4: checkpoints/x, 1.3 MB"),
    ("fallback", {"message": "Another way."}, "fallback: Another way."),
    ("evaluation", {"when": "after", "accuracy": None, "num_problems": 8, "quality": 0.25},
     "held-out problems, after: accuracy unknown of 8, quality 0.250"),
])
def test_what_people_are_told(kind: str, payload: dict[str, Any], words: str) -> None:
    told: list[str] = []
    Teller(told.append).tell(kind, payload)
    assert kind in KINDS and told == [words]


def test_what_happens_in_every_step_is_not_told() -> None:
    told: list[str] = []
    for stage in ("sampling", "updating", "saving"):
        Teller(told.append).tell("stage", {"stage": stage, "step": 1})
    Teller(told.append).tell("scalars", {"step": 1, "values": {"eval/accuracy": 0.5}})
    assert not told


def test_counters_go_through_the_disk_unharmed(tmp_path: Path) -> None:
    counters = Counters(step=7, tokens=123, device_seconds=4.5, before={"quality": 0.25})
    (tmp_path / TRAINER).write_text(json.dumps({"counters": vars(counters), "scale": {"cur_scale": 2.0}}))
    assert read_trainer(tmp_path) == (counters, {"cur_scale": 2.0})


@pytest.mark.parametrize("text", [None, "{", "[]", '{"counters": {}}', '{"counters": {"stepp": 1}, "scale": {}}'])
def test_counters_that_cannot_be_read_are_a_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / TRAINER).write_text(text)
    with pytest.raises(CheckpointError, match=r"no readable trainer\.json .* Choose another checkpoint"):
        read_trainer(tmp_path)


def test_a_job_says_how_long_it_took_also_when_it_failed() -> None:
    began = time.monotonic()
    good, bad = Background(lambda: 7), Background(lambda: 1 // 0)
    assert good.result() == 7 and isinstance(bad.error(), ZeroDivisionError) and good.is_done and bad.is_done
    assert 0 <= max(good.seconds, bad.seconds) <= time.monotonic() - began
