"""What a trainer's process gets: arguments that DeepSpeed's launcher takes, and cores that are shared out."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.launch import SPIN_COUNT, command, environment, free_port


@settings(deadline=None)
@given(st.integers(1, 64))
def test_the_world_has_every_rank_once_on_this_machine(num_processes: int) -> None:
    argv = command(Path("/runs/with space/ü"), num_processes=num_processes, master_port=1)
    told = dict(argument[2:].split("=", 1) for argument in argv if argument.startswith("--") and "=" in argument)
    world = json.loads(base64.urlsafe_b64decode(told["world_info"]))
    assert world == {"localhost": list(range(num_processes))} and told["master_addr"] == "127.0.0.1"
    assert argv[0] == sys.executable and argv[-1] == "/runs/with space/ü" and all(isinstance(argument, str) for argument in argv)


def test_what_follows_the_module_is_the_trainers_own() -> None:
    argv = command("/runs/1", num_processes=1, master_port=1)
    assert argv[argv.index("--module") + 1 :] == ["model_core", "train", "/runs/1"]


def test_a_port_that_is_not_given_is_one_that_can_be_listened_on() -> None:
    (told,) = (argument for argument in command("/runs/1", num_processes=2) if argument.startswith("--master_port="))
    for port in (int(told.partition("=")[2]), free_port()):
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
            assert server.getsockname()[1] == port > 0


@settings(deadline=None)
@given(st.integers(1, 32), st.integers(1, 128))
def test_threads_of_all_ranks_are_no_more_than_the_cores_but_one_each(num_processes: int, num_cores: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        threads = int(environment(num_processes=num_processes, num_cores=num_cores)["OMP_NUM_THREADS"])
    assert threads == 1 or threads * num_processes <= num_cores < (threads + 1) * num_processes


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 3, 4, 7, 9, 11})
    assert environment(num_processes=2)["OMP_NUM_THREADS"] == "3"


def test_what_the_caller_says_goes_first_and_every_value_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert environment()["GOMP_SPINCOUNT"] == SPIN_COUNT
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    made = environment(num_processes=9, num_cores=1)
    assert (made["GOMP_SPINCOUNT"], made["OMP_NUM_THREADS"]) == ("7", "5")
    assert all(isinstance(value, str) for value in made.values())
