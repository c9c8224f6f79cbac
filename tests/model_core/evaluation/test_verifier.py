"""math-verify in its process: late, dead, unreadable or asked from threads, it costs its deadline and nothing else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from model_core.errors import MachineError, Undecided
from model_core.evaluation.answers import same_answer
from model_core.evaluation.verifier import Verifier

SAYS = "import json, sys, time\nprint('ready', flush=True)\nfor line in sys.stdin:\n    one, other = json.loads(line)\n"
HANGS = SAYS + "    time.sleep(600 if other == 'hang' else 0)\n    print('same' if one == other else 'different', flush=True)\n"
DIES = SAYS + "    sys.exit(1)\n"
Make = Callable[..., Verifier]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Verifier] = []

    def build(program: str, deadline_seconds: float = 5.0) -> Verifier:
        made.append(Verifier(argv=(sys.executable, "-I", "-S", "-c", program), deadline_seconds=deadline_seconds))
        return made[-1]

    yield build
    for verifier in made:
        verifier.close()


def test_a_question_that_hangs_costs_its_deadline_once_and_the_next_is_answered(make: Make) -> None:
    verifier = make(HANGS, 0.5)
    assert verifier.same("a", "a")
    started = time.monotonic()
    with pytest.raises(Undecided, match=r"no answer within 0\.5 s on 'a' and 'hang'"):
        verifier.same("a", "hang")
    assert 0.5 <= time.monotonic() - started < 3
    started = time.monotonic()
    with pytest.raises(Undecided):
        verifier.same("a", "hang")
    assert time.monotonic() - started < 0.1 and verifier.num_late == 1, "it is known and not asked again"
    assert verifier.same("b", "b") and not verifier.same("a", "b")


def test_a_process_that_dies_leaves_its_question_undecided(make: Make) -> None:
    verifier = make(DIES)
    for given in ("b", "c"):
        with pytest.raises(Undecided):
            verifier.same("a", given)


@pytest.mark.parametrize("program", ["", "print('hello')", "import sys; sys.exit(3)"])
def test_a_process_that_does_not_start_is_the_machines_fault(program: str, make: Make) -> None:
    with pytest.raises(MachineError, match="does not start"):
        make(program).same("a", "b")


def test_threads_may_ask_at_once(make: Make) -> None:
    verifier, num_threads_before = make(HANGS), threading.active_count()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: verifier.same(str(number), str(number // 2 * 2)), range(200)))
    assert answers == [number % 2 == 0 for number in range(200)]
    assert threading.active_count() <= num_threads_before, "a question leaves no thread behind"


def test_what_would_never_end_is_undecided_and_what_nobody_reads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real process: a tower of powers; a gold answer that is no formula. A given text that is none is just wrong."""
    real = Verifier(deadline_seconds=1.0)
    monkeypatch.setattr("model_core.evaluation.answers.VERIFIER", real)
    assert same_answer(r"\sqrt{4}", "2")
    with pytest.raises(Undecided, match="no answer within"):
        same_answer(r"10^{10^{10^{10}}}", r"9^{9^{9^{9}}}+1")
    with pytest.raises(Undecided, match="cannot read it"):
        same_answer(r"\begin{a} ^^ }{", r"\sqrt{4}")
    assert not same_answer(r"\sqrt{5}", r"\begin{a} ^^ }{")
    real.close()
