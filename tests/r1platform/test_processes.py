"""A process is its pid, start time and boot; a stop is proven, not hoped for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from r1platform.lib import processes
from r1platform.lib.processes import ProcessRef, exit_code, group_pids, is_alive, spawn, stop_group

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
print("parent", flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def start(code: str, folder: Path) -> ProcessRef:
    return spawn([sys.executable, "-c", code], cwd=folder, env=dict(os.environ), log=folder / "log")


def test_a_child_has_its_own_session_and_a_log(tmp_path: Path) -> None:
    ref = start("import os; print('hello', os.getsid(0) == os.getpid())", tmp_path)
    wait_until(lambda: not is_alive(ref))
    assert (tmp_path / "log").read_text() == "hello True\n"
    assert exit_code(ref) == 0
    assert group_pids(ref) == []


def test_whoever_spawns_again_keeps_no_zombie(tmp_path: Path) -> None:
    first = start("pass", tmp_path)
    wait_until(lambda: processes.started_at(first.pid) is None)
    assert Path(f"/proc/{first.pid}").exists(), "nobody has waited for it yet"
    second = start(SLEEP, tmp_path)
    assert not Path(f"/proc/{first.pid}").exists() and exit_code(first) == 0
    assert stop_group(second, grace_seconds=5)


def test_a_killed_process_of_many_threads_has_its_exit_code(tmp_path: Path) -> None:
    """Its leader is a zombie a moment before the other threads are gone."""
    many = "import threading, time; [threading.Thread(target=time.sleep, args=[600]).start() for _ in range(200)]; print('ready', flush=True)"
    for _ in range(3):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        ref = start(many, tmp_path)
        wait_until(lambda log=log: log.exists() and "ready" in log.read_text())  # type: ignore[misc]
        os.kill(ref.pid, 9)
        wait_until(lambda ref=ref: not is_alive(ref))  # type: ignore[misc]
        assert exit_code(ref) == -9


def test_a_polite_stop_is_enough_for_a_polite_process(tmp_path: Path) -> None:
    ref = start(SLEEP, tmp_path)
    assert is_alive(ref) and group_pids(ref) == [ref.pid]
    assert stop_group(ref, grace_seconds=5)
    assert not is_alive(ref)
    assert exit_code(ref) == -15


def test_a_firm_stop_ends_the_stubborn_and_their_children(tmp_path: Path) -> None:
    ref = start(PARENT, tmp_path)
    wait_until(lambda: "ready" in (tmp_path / "log").read_text() and len(group_pids(ref)) == 2)
    assert stop_group(ref, grace_seconds=0.2)
    assert group_pids(ref) == []


def test_children_of_a_dead_leader_are_found(tmp_path: Path) -> None:
    ref = start(PARENT, tmp_path)
    wait_until(lambda: "ready" in (tmp_path / "log").read_text() and len(group_pids(ref)) == 2)
    os.kill(ref.pid, 9)
    wait_until(lambda: not is_alive(ref))
    assert len(group_pids(ref)) == 1
    assert stop_group(ref, grace_seconds=0.1)


@pytest.mark.parametrize("change", [{"started_at": 1.0}, {"boot_id": "another"}])
def test_a_reused_pid_is_not_the_process(tmp_path: Path, change: dict[str, object]) -> None:
    ref = start(SLEEP, tmp_path)
    other = replace(ref, **change)  # type: ignore[arg-type]
    assert not is_alive(other) and group_pids(other) == []
    assert stop_group(other, grace_seconds=0.1)
    assert is_alive(ref), "a stop of another process must not touch this one"
    assert stop_group(ref, grace_seconds=5)


def test_another_process_adopts_by_reference(tmp_path: Path) -> None:
    """Who did not spawn it can watch and stop it all the same."""
    ref = start(SLEEP, tmp_path)
    adopted = processes.reference(ref.pid)
    assert adopted == ref
    assert stop_group(adopted, grace_seconds=5) and not is_alive(ref)


def test_no_such_process() -> None:
    with pytest.raises(ProcessLookupError):
        processes.reference(2**22 - 1)
    assert processes.started_at(2**22 - 1) is None


def test_a_missing_program_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/no/such/program"], cwd=tmp_path, env={}, log=tmp_path / "log")
