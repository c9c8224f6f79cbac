"""A reward in a process of its own: when it hangs it is killed at its deadline, when it crashes only it is gone.

The process speaks JSON, one line a sample and one line a score; it is started when it is first needed and again after it was
killed. `python -m model_core.rewards._apart` is its other end. It ends with its parent, and a hung one soon after.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from model_core.config.base import StrictModel
from model_core.pipes import line_within
from model_core.rewards._types import Reward, Sample, Score

START_SECONDS = 60.0
"""A machine may be busy; starting is no part of a sample's deadline."""
MAX_IN_ROW = 4
"""So many samples in a row without a score, and the rest of the call is not asked for: a step costs that many deadlines."""


class Apart:
    """Judges samples by a reward class in another process, each within `deadline_seconds`."""

    def __init__(self, cls: type, config: StrictModel, *, deadline_seconds: float) -> None:
        self._asked = {"module": cls.__module__, "settings": config.resolved(), "seconds": deadline_seconds}
        self._deadline = deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._ender: Any = None
        self._stderr: Any = None

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        """A score for each sample; one that hung, crashed or was no longer asked for is unscored with the reason."""
        scores: list[Score] = []
        in_row = 0
        for sample in samples:
            if in_row >= MAX_IN_ROW:
                scores.append(Score.unscored(f"not asked: {in_row} samples in a row got no score ({scores[-1].detail})"[:400]))
                continue
            value, reason = self._ask(sample)
            in_row = 0 if value is not None else in_row + 1
            scores.append(value if value is not None else Score.unscored(reason))
        return scores

    def close(self) -> None:
        """Ends the process and whatever it has started."""
        if self._ender is not None:
            self._ender()
        self._process = None

    def _ask(self, sample: Sample) -> tuple[Score | None, str]:
        began = time.monotonic()
        if self._process is None:
            self._start()
            if self._line(START_SECONDS) is None:
                return None, self._gone(f"it did not start within {START_SECONDS:.0f} seconds", began, START_SECONDS)
        assert self._process is not None and self._process.stdin is not None
        began = time.monotonic()
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asdict(sample)).encode() + b"\n")
            self._process.stdin.flush()
        line = self._line(self._deadline)
        if line is None:
            return None, self._gone(f"it did not answer within {self._deadline:g} seconds and was ended", began, self._deadline)
        said = json.loads(line)
        return Score(said["value"], said["detail"]), ""

    def _start(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        process = subprocess.Popen(
            [sys.executable, "-m", "model_core.rewards._apart", json.dumps(self._asked)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        self._process, self._ender = process, weakref.finalize(self, _end, process, self._stderr)

    def _line(self, seconds: float) -> bytes | None:
        assert self._process is not None and self._process.stdout is not None
        return line_within(self._process.stdout.fileno(), seconds)

    def _gone(self, hung: str, began: float, seconds: float) -> str:
        """Ends what is left of the process and says how it came to that."""
        assert self._process is not None
        process, is_late = self._process, time.monotonic() - began >= seconds
        self._stderr.seek(0)
        last = self._stderr.read()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
        self.close()
        if is_late:
            return f"The verifier has no score: {hung}."
        code = process.returncode
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"The verifier crashed with {how}" + (f": {last[0][:200]}" if last else ".")


def _end(process: subprocess.Popen[bytes], stderr: Any) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, stderr):
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()
    process.wait()


def main() -> None:
    """Judges the samples that come in until there are no more."""
    asked = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a reward prints is no answer
    reward = _made(asked["module"], asked["settings"])
    answers.write("{}\n")
    for line in sys.stdin:
        faulthandler.dump_traceback_later(2 * asked["seconds"] + 1, exit=True)
        score = reward(Sample(**json.loads(line)))
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps({"value": score.value, "detail": score.detail}) + "\n")


def _made(module: str, settings: dict[str, Any]) -> Reward:
    found = importlib.import_module(module)
    cls: Any = next(value for value in vars(found).values() if getattr(value, "__registered__", None) == module)
    made: Reward = cls(cls.Config.parse(settings))
    return made


if __name__ == "__main__":
    main()
