"""What hangs costs its deadline, what crashes costs itself, and everything else is scored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from model_core.rewards import REWARDS
from model_core.rewards._apart import MAX_IN_ROW, Apart
from model_core.rewards._sandbox import run_program
from model_core.rewards._types import Sample, Score
from tests.model_core.rewards.hanging import Hanging


def sample(completion: str, **values: Any) -> Sample:
    return Sample(**{"prompt": "p", "completion": completion, "expected": None, "task": "", "num_tokens": 3, "finish_reason": "stop", **values})


@pytest.fixture
def apart() -> Iterator[Apart]:
    made = Apart(Hanging, Hanging.Config(), deadline_seconds=0.5)
    yield made
    made.close()


def test_one_that_hangs_and_one_that_crashes_leave_the_others_their_scores(apart: Apart) -> None:
    assert apart.score([sample("start")])[0].value == 0.5
    began = time.monotonic()
    scores = apart.score([sample(text) for text in ("one", "hang", "two", "crash", "three")])
    assert [score.value for score in scores] == [0.5, None, 0.5, None, 0.5]
    assert "did not answer within 0.5 seconds" in scores[1].detail and "crashed with exit status 7" in scores[3].detail
    assert time.monotonic() - began < 20  # two starts and one deadline, not an hour


def test_a_verifier_that_always_hangs_costs_a_few_deadlines_and_leaves_no_process(apart: Apart) -> None:
    before = set(psutil.Process().children(recursive=True))
    scores = apart.score([sample("hang")] * (MAX_IN_ROW + 20))
    assert all(score.value is None for score in scores) and "not asked" in scores[-1].detail
    apart.close()
    assert set(psutil.Process().children(recursive=True)) <= before


def ran(program: str, checks: str = "assert add(2, 3) == 5", seconds: float = 5.0) -> bool | None:
    return run_program(program, checks, deadline_seconds=seconds, memory_mb=256).passed


@pytest.mark.parametrize(("program", "passed"), [
    ("def add(a, b): return a + b", True), ("def add(a, b): return a - b", False), ("def add(a, b) return", False), ("", False),
    ("import os; os._exit(0)", False), ("import os; os._exit(97)", False), ("raise SystemExit(0)", False), ("print('x' * 10**6)\ndef add(a, b): return a + b", True),
    ("x = 'a' * (1 << 30)", False), ("open('big', 'wb').write(b'x' * (8 << 20))", False),
])
def test_a_program_passes_by_its_checks_and_by_nothing_else(program: str, passed: bool) -> None:
    assert ran(program) is passed


def test_a_program_that_never_ends_is_ended_with_what_it_started() -> None:
    marker = "r1sandboxmarker"
    program = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{marker}'])\ntime.sleep(600)"
    assert ran(program, seconds=1.0) is False
    deadline = time.monotonic() + 10
    while any(marker in " ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline


def test_a_child_in_a_session_of_its_own_neither_holds_the_deadline_up_nor_lives_on() -> None:
    marker = "r1sandboxescapes"
    program = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{marker}'], start_new_session=True)\ntime.sleep(60)"
    began = time.monotonic()
    ran = run_program(program, "", deadline_seconds=1.0, memory_mb=256)
    assert ran.passed is False and time.monotonic() - began < 10
    if "network" in ran.detail:
        return  # this system lets nobody have processes of their own
    deadline = time.monotonic() + 10
    while any(marker in " ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline


def test_what_a_program_prints_is_bounded() -> None:
    assert ran("while True:\n    print('x' * 10**6)", seconds=20.0) is False


def test_a_program_sees_neither_the_environment_nor_the_directory_of_its_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_SECRET_KEY", "hidden")
    assert ran("import os", f"assert 'R1_SECRET_KEY' not in os.environ and os.listdir('.') == [] and os.getcwd() != {str(Path.cwd())!r}")


@pytest.mark.parametrize(("completion", "tests", "expected"), [
    ("<think>easy</think>```python\ndef add(a, b):\n    return a + b\n```", ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], 1.0),
    ("<think>```python\nx\n```</think>```\ndef add(a, b):\n    return a\n```", ["assert add(1, 2) == 3"], 0.0), ("<think>a</think>no program", ["assert True"], 0.0),
    ("```python\nx = 1\n```", None, None), ("```python\nx = 1\n```", [], None), ("```python\nx = 1\n```", [1], None), ("```python\nx = 1\n```", "assert x == 1", 1.0),
])
def test_code_runs_the_last_block_of_the_answer_against_the_rows_checks(completion: str, tests: Any, expected: float | None) -> None:
    judged: Score = REWARDS.get("code")()(sample(completion, meta={} if tests is None else {"tests": tests}))
    assert judged.value == expected and judged.detail
