"""`python -m model_core plan` tells what the planner knows, as JSON and as a table, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_core.__main__ import main
from model_core.config import PRESETS, RunConfig, RunPaths
from model_core.planner import needed_bytes
from model_core.rundir import RunDir


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_plan(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = planned(capsys, name, "--devices", "8xH200")
    assert told["smallest"]["bytes"] <= told["smallest"]["device"]["usable_bytes"]
    assert told["memory"]["total"] == max(moment["total"] for moment in told["memory"]["moments"].values())
    assert main(["plan", name, "--devices", "8xH200"]) == 0
    assert "Smallest layout that fits" in capsys.readouterr().out


def test_v3_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    told = planned(capsys, "v3_671b", "--devices", "8xH200", "--tokens", "14.8e12", "--mfu", "0.4", "--price", "2")
    assert told["cache_bytes_per_token"] == 70272 and not told["smallest"]["is_here"]
    assert told["smallest"]["smaller_do_not_fit"][0].startswith("1 × H200")
    assert told["cost"]["price"] == pytest.approx(2 * told["cost"]["device_hours"])


def test_a_run_is_planned_from_a_file_and_from_its_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunConfig.parse({"phase": "cold_start", "parallel": {"num_processes": 2, "expert": 2}})
    file, rundir = tmp_path / "run.json", RunDir.create(tmp_path / "run", run=run, paths=RunPaths())
    file.write_text(json.dumps(run.resolved()))
    expected = needed_bytes(run).peak.total
    for where in (file, rundir.path, rundir.config):
        told = planned(capsys, str(where))
        assert told["memory"]["total"] == expected and told["layout"]["expert"] == 2


def test_a_run_from_a_checkpoint_has_the_checkpoints_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "step_1"
    start.mkdir()
    (start / "metadata.json").write_text(json.dumps({"model_config": {"vocab_size": 50, "hidden_size": 64}}))
    run = RunConfig.parse({"phase": "reinforcement"})
    rundir = RunDir.create(tmp_path / "run", run=run, paths=RunPaths(start_from=str(start)))
    assert planned(capsys, str(rundir.path))["parameters"]["embedding"] == 50 * 64


@pytest.mark.parametrize(("arguments", "field"), [
    (["huge"], "config"), (["tiny", "--devices", "3"], "devices"), (["tiny", "--rows", "0"], "rows"),
    (["tiny", "--sequence", "9999"], "sequence"), (["tiny", "--tokens", "1e9"], "tokens"), (["tiny", "--price", "1"], "price"),
    (["tiny", "--mfu", "0.4"], "mfu"), (["tiny", "--mfu", "0.4", "--devices", "1xCPU:4GB"], "mfu"),
    (["tiny", "--mfu", "0.4", "--tokens-per-second", "9"], "mfu"), (["tiny", "--tokens-per-second", "0"], "tokens_per_second"),
    (["tiny", "--mfu", "2", "--devices", "1xH200"], "mfu"), (["tiny", "--micro-tokens", "-1"], "micro_tokens"),
])  # fmt: skip
def test_what_cannot_be_is_said_at_its_option(arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"ConfigError ({field}): ")


@pytest.mark.parametrize("text", ["[]", "{", '{"phase": "cold_start", "wrong": 1}'])
def test_a_file_that_is_no_run_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(text)
    assert main(["plan", str(tmp_path / "run.json")]) == 2
    assert capsys.readouterr().err.startswith("ConfigError")


def test_planning_loads_no_torch() -> None:
    code = "import sys; from model_core.__main__ import main; main(['plan', 'small', '--devices', '2xCPU:16GB']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"
