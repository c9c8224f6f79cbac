"""The directory of one preparation: what goes in, what it tells, how it ended. Written by `python -m model_core prepare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_core.commands.prepare import CONFIG, COUNTS, DATA, EVENTS, RESULT
from r1platform.lib.jsonb import jsonb_loads
from r1platform.lib.tail import read_lines


class PreparationDir:
    """Names and readings inside the directory of one version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.data, self.result = path / CONFIG, path / DATA, path / RESULT
        self.log = path / "stdout.log"
        self.inputs = path / "inputs"
        self._counts = path / COUNTS
        self._events, self._offset = path / EVENTS, 0
        self._progress = (0.0, "")

    def clear(self) -> None:
        """Makes it ready for another try."""
        self.path.mkdir(parents=True, exist_ok=True)
        for file in (self.result, self._events, self._counts):
            file.unlink(missing_ok=True)
        self._offset = 0

    def read_progress(self) -> tuple[float, str]:
        """The newest fraction and its words."""
        lines, self._offset = read_lines(self._events, self._offset)
        for line in lines:
            event = json.loads(line)
            if event["kind"] == "progress":
                self._progress = (float(event["payload"]["fraction"]), str(event["payload"]["stage"]))
        return self._progress

    def read_counts(self) -> dict[str, Any]:
        """What became of the rows so far; empty before the first were read."""
        try:
            found: dict[str, Any] = jsonb_loads(self._counts.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def read_result(self) -> dict[str, Any] | None:
        """How it ended; None when it died before."""
        try:
            found: dict[str, Any] = jsonb_loads(self.result.read_bytes())
        except FileNotFoundError:
            return None
        return found
