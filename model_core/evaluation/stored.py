"""Completions on their way to a result, in a JSONL beside it: a call that was cut off goes on where it ended.

The first line holds the settings that the completions were made under; other settings are refused, never mixed. A
problem is one line, written when all its samples are there. A request that failed is not kept, so a later call tries it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model_core.errors import ConfigError, DataError
from model_core.evaluation.results import Answered


class Stored:
    """The file of one evaluation, opened for appending; use it as a context manager."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.answers: dict[int, list[Answered]] = {}

    def __enter__(self) -> Stored:
        """Reads what is there. Raises ConfigError for other settings, DataError for a line that is none of ours."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read()
        self._file = self.path.open("r+b" if self.path.exists() else "wb")
        self._file.truncate(whole)
        self._file.seek(whole)
        if whole == 0:
            self._write({"settings": self.settings})
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def add(self, row: int, answers: Sequence[Answered]) -> None:
        """Keeps the samples of a problem; those with a failure only until the end of this call."""
        self.answers[row] = list(answers)
        if all(answered.completion is not None for answered in answers):
            self._write({"row": row, "samples": [asdict(answered) for answered in answers]})

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Reads the whole lines and returns where they end; a last line that was cut off is dropped."""
        if not self.path.exists():
            return 0
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                self._take(json.loads(line), number)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path}, line {number}: not a line of an evaluation ({error}). Choose another --json, or "
                                "delete the file to begin anew.", field="json") from error
        return whole

    def _take(self, value: dict[str, Any], number: int) -> None:
        if number > 1:
            self.answers[int(value["row"])] = [Answered(**sample) for sample in value["samples"]]
            return
        stored = value["settings"]
        other = sorted(key for key in {*stored, *self.settings} if stored.get(key) != self.settings.get(key))
        if other:
            said = ", ".join(f"{key} {stored.get(key)!r:.60} there and {self.settings.get(key)!r:.60} here" for key in other)
            raise ConfigError(f"{self.path} holds completions under other settings: {said}. Choose another --json, or delete "
                              "the file to begin anew.", field="json")
