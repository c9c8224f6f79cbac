"""math-verify in a process of its own that is ended when it is late; it works from any thread and without signals.

The process lives as long as its parent and answers one question after another; starting it takes half a second.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

from model_core.errors import MachineError, Undecided
from model_core.pipes import line_within

DEADLINE_SECONDS = 5.0
START_SECONDS = 120.0
"""The first start on a busy machine with cold disks may take long; it is no question's fault."""
MAX_KNOWN = 1 << 14
"""Judged pairs that are kept; the samples of a group often repeat an answer."""
_WORKER = Path(__file__).with_name("_math_worker.py")


class Verifier:
    """Asks the process, which is started at the first question and again after one that was late."""

    def __init__(
        self, *, argv: tuple[str, ...] = (sys.executable, "-P", str(_WORKER)), deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self.argv, self.deadline_seconds = argv, deadline_seconds
        self.num_late = 0
        self._known: OrderedDict[tuple[str, str], str | None] = OrderedDict()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def same(self, expected: str, given: str) -> bool:
        """Whether both LaTeX texts mean the same.

        Raises:
            Undecided: no answer within the deadline, the process died of it, or `expected` cannot be read.
            MachineError: the process cannot be started.
        """
        with self._lock:
            answer = self._answer(expected, given)
        if answer is None:
            asked = f"{expected[:80]!r} and {given[:80]!r}"
            raise Undecided(f"math-verify gave no answer within {self.deadline_seconds:g} s on {asked}.")
        if answer == "unreadable":
            raise Undecided(f"The expected answer {expected[:80]!r} is no number, choice or word, and math-verify cannot read it.")
        return answer == "same"

    def close(self) -> None:
        """Ends the process; the next question starts another."""
        with self._lock:
            self._end()

    def _answer(self, expected: str, given: str) -> str | None:
        """What the process says, or said; a question that was late once is not asked again."""
        question = (expected, given)
        if question not in self._known:
            answer = self._ask(self._running(), json.dumps(question), self.deadline_seconds)
            if answer is None:
                self.num_late += 1
                self._end()
            self._known[question] = answer
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return self._known[question]

    def _running(self) -> subprocess.Popen[bytes]:
        """The process of this very process: after a fork the child must not share its parent's."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._end()
        if not self._owner:
            atexit.register(self.close)
        self._process = subprocess.Popen(
            self.argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._owner = os.getpid()
        if self._ask(self._process, None, START_SECONDS) != "ready":
            self._end()
            raise MachineError("The process of math-verify does not start; is the package math-verify installed?")
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: str | None, seconds: float) -> str | None:
        """The next line of the process, or None when it is late or gone."""
        assert process.stdin is not None and process.stdout is not None
        try:
            if question is not None:
                process.stdin.write(question.encode() + b"\n")
            line = line_within(process.stdout.fileno(), seconds)
        except BrokenPipeError:
            return None
        return line.decode("ascii", "replace").strip() or None if line else None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        if self._owner == os.getpid():
            process.kill()
            process.wait()
        else:
            process.returncode = 0  # the parent's child, not ours to wait for
        for pipe in (process.stdin, process.stdout):
            pipe.close()


VERIFIER = Verifier()
"""The one of this process; its worker ends with it."""
