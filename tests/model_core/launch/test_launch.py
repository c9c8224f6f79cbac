"""The command by which a trainer is started."""

import base64
import json
import subprocess
import sys

import pytest

from model_core.launch import command, environment, free_port


def test_command_runs_deepspeeds_launcher() -> None:
    argv = command("/runs/1", num_processes=2, python="python3", master_port=1234)
    assert argv[:3] == ["python3", "-m", "deepspeed.launcher.launch"]
    assert argv[-3:] == ["model_core", "train", "/runs/1"] and "--master_port=1234" in argv
    (world,) = (a.removeprefix("--world_info=") for a in argv if a.startswith("--world_info="))
    assert json.loads(base64.urlsafe_b64decode(world)) == {"localhost": [0, 1]}


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment(num_processes=2, num_cores=8)["OMP_NUM_THREADS"] == "4"
    assert environment(num_processes=4, num_cores=2)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(num_processes=2, num_cores=8)["OMP_NUM_THREADS"] == "3"


def test_ports_are_free() -> None:
    assert 1024 < free_port() < 65536


def test_launching_imports_no_torch() -> None:
    code = "import sys, model_core.launch, model_core.__main__; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
