"""The directory of one evaluation: what its process has written, and how it is told from outside.

Every answer is one line of `result.json.samples.jsonl`, so a process that was cut off goes on where it ended.
"""

from __future__ import annotations

import json
import re
from typing import Any

from model_core.errors import DataError
from r1platform.lib.jsonb import jsonb_loads
from r1platform.lib.storage import evaluation_dir
from r1platform.lib.tail import last_words
from training_app.models import EvaluationProblem

_ERROR = re.compile(r"\w+Error(?: \([\w.]+\))?: (.+)")
_CHUNK_BYTES = 1 << 20


class EvaluationDir:
    """Names and readings inside the directory of one evaluation."""

    def __init__(self, evaluation_id: int) -> None:
        self.path = evaluation_dir(evaluation_id)
        self.data = self.path / "data.jsonl"
        self.result = self.path / "result.json"
        self.samples = self.path / "result.json.samples.jsonl"
        self.log = self.path / "stdout.log"
        self._counted, self._num_lines = 0, 0

    def num_done(self) -> int:
        """Problems that are answered and kept; the first line of the file is none."""
        try:
            with self.samples.open("rb") as file:
                file.seek(self._counted)
                while chunk := file.read(_CHUNK_BYTES):
                    self._num_lines += chunk.count(b"\n")
                    self._counted += len(chunk)
        except FileNotFoundError:
            return 0
        return max(self._num_lines - 1, 0)

    def read_result(self) -> dict[str, Any] | None:
        """How it ended; None when it has not, or died before."""
        try:
            found: dict[str, Any] = jsonb_loads(self.result.read_bytes())
        except FileNotFoundError:
            return None
        return found

    def refusal(self) -> str:
        """The sentence of the error that ended the process; empty when it died of something else."""
        found = _ERROR.fullmatch((last_words(self.log).splitlines() or [""])[-1].strip())
        return found[1] if found else ""

    def places(self) -> dict[int, tuple[int, int]]:
        """Of each problem where its texts stand in the samples' file: byte and length."""
        found: dict[int, tuple[int, int]] = {}
        at = 0
        if not self.samples.exists():
            return found
        with self.samples.open("rb") as file:
            for number, line in enumerate(file):
                if number:
                    found[int(json.loads(line)["row"])] = (at, len(line))
                at += len(line)
        return found

    def texts(self, problem: EvaluationProblem) -> list[str | None]:
        """What each sample of the problem said. Raises DataError when the file is not on this machine."""
        if problem.at_byte is None:
            return []
        try:
            with self.samples.open("rb") as file:
                file.seek(problem.at_byte)
                line = json.loads(file.read(problem.num_bytes))
        except (OSError, ValueError) as error:
            raise DataError("What the model said is not on this machine: its file is gone, or on another node.") from error
        return [sample["completion"] for sample in line["samples"]]
