"""The run directory: the only interface between the platform and the trainer.

    config.json      {"run": RunConfig, "paths": RunPaths}, complete and resolved, written before the start
    command.json     how the platform started it: argv and environment differences; absent when started by hand
    events.jsonl     rank 0 appends; see `model_core.events`
    stop             created to ask for an end; read at step boundaries and between rounds of sampling, agreed by all ranks
    stdout.log       everything the processes print, when the starter sends it there
    checkpoints/step_00000012/{model,state}/ metadata.json COMPLETE; written as part_00000012 and renamed when whole
    engine_weights/  what an engine that samples is given, while the run goes on
    samples/         rollouts, one gzipped JSONL a step of reinforcement or a round of rejection sampling
    errors/          rank_1.json …: why a rank failed, for the first rank to tell
    result.json      last of all; its absence means that the trainer did not get to its end

A directory is one run: where result.json is, training is refused; where there are only checkpoints, the trainer was killed
and training goes on from the newest of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from model_core.config import RunConfig, RunPaths
from model_core.errors import ConfigError

COMPLETE = "COMPLETE"


class RunDir:
    """Names and atomic writes inside one run directory."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.command = self.path / "command.json"
        self.events = self.path / "events.jsonl"
        self.stop = self.path / "stop"
        self.log = self.path / "stdout.log"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.errors = self.path / "errors"
        self.result = self.path / "result.json"

    @classmethod
    def create(cls, path: str | Path, *, run: RunConfig, paths: RunPaths) -> RunDir:
        """Makes the directory with its config.json; an existing config.json is refused."""
        rundir = cls(path)
        if rundir.config.exists():
            raise ConfigError(f"{rundir.path} already holds a run; choose another directory.")
        rundir.checkpoints.mkdir(parents=True, exist_ok=True)
        rundir.samples.mkdir(exist_ok=True)
        write_json(rundir.config, {"run": run.resolved(), "paths": paths.resolved()})
        return rundir

    def load(self) -> tuple[RunConfig, RunPaths]:
        """Reads and validates config.json. Raises ConfigError when it is missing, broken or not valid."""
        try:
            stored = json.loads(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.path} has no config.json: it is not a run directory.") from None
        except OSError as error:
            raise ConfigError(f"{self.config} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.config} is not valid JSON in UTF-8: {error}.") from error
        run, paths = (stored.get("run", {}), stored.get("paths", {})) if isinstance(stored, dict) else (None, None)
        if not isinstance(run, dict) or not isinstance(paths, dict):
            raise ConfigError(f'{self.config} must be an object {{"run": {{…}}, "paths": {{…}}}}; write it so.')
        return RunConfig.parse(run), RunPaths.parse(paths, prefix="paths")

    def ask_to_stop(self, reason: str) -> None:
        """Asks the trainer to write a checkpoint and end; asking twice is harmless."""
        self.stop.write_text(reason)

    def checkpoint(self, step: int) -> Path:
        """Directory of the checkpoint at `step`."""
        return self.checkpoints / f"step_{step:08d}"

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoint directories with a COMPLETE marker, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(p for p in self.checkpoints.glob("step_*") if (p / COMPLETE).is_file())

    def read_result(self) -> dict[str, Any] | None:
        """result.json, or None while there is none."""
        try:
            result: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return result


def used_until(checkpoint: str | Path) -> tuple[float, int]:
    """Device seconds and tokens that a run had used, over all its attempts, when it wrote this checkpoint; zeros when it does not
    say."""
    try:
        counters = json.loads((Path(checkpoint) / "state" / "trainer.json").read_text(encoding="utf-8"))["counters"]
        return float(counters["device_seconds"]), int(counters["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the whole new one, also after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
