"""A model of a few thousand weights, and trainers run as they are in earnest: in their own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from model_core.launch import command, environment
from model_core.rundir import RunDir
from tests.model_core import forked

ROOT = Path(__file__).parents[3]
TINY = {
    "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "moe_intermediate_size": 16,
    "n_routed_experts": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "max_position_embeddings": 48,
}
BASE: dict[str, Any] = {"model": TINY, "held_out": {"num_problems": 24, "max_new_tokens": 16}}


@dataclass(frozen=True)
class Trained:
    """A run directory after its trainer ended."""

    rundir: RunDir
    status: int
    output: str

    @property
    def result(self) -> dict[str, Any]:
        result = self.rundir.read_result()
        assert result is not None, self.output
        return result

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.rundir.events.read_text().splitlines()]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        return [line["payload"] for line in lines if line["kind"] == kind]

    def series(self, name: str) -> list[Any]:
        return [e["values"][name] for e in self.events("scalars") if name in e["values"]]

    def checkpoint(self, step: int) -> str:
        return str(self.rundir.checkpoint(step))


Train = Callable[..., Trained]


def execute(rundir: RunDir, *, num_processes: int = 1, launcher: bool = False) -> Trained:
    """Trains to the end; `launcher` starts it as the platform does, by DeepSpeed's launcher."""
    with tempfile.NamedTemporaryFile("w+") as output:
        if launcher:
            argv, env = _launching(rundir, num_processes)
            status = subprocess.run(argv, env=env, cwd=ROOT, stdout=output, stderr=output, timeout=120).returncode
        else:
            status = forked.run(["train", str(rundir.path)], output=Path(output.name), num_processes=num_processes)
        return Trained(rundir, status, output.read()[-8000:])


class Running:
    """A trainer at work, by DeepSpeed's launcher if asked; leaving the block kills what is left of it."""

    def __init__(self, rundir: RunDir, *, num_processes: int = 1, launcher: bool = False) -> None:
        self.rundir = rundir
        self.process = Launched(rundir, num_processes) if launcher else Forked(rundir, num_processes)
        self.pid = self.process.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.end()

    def until(self, is_so: Callable[[], Any]) -> None:
        """Waits until something is so, while the trainer lives."""
        deadline = time.monotonic() + 120
        while not is_so():
            assert self.process.status(0) is None and time.monotonic() < deadline, self.rundir.log.read_text()
            time.sleep(0.01)

    def has_told(self, kind: str) -> bool:
        """Whether there is an event of this kind."""
        path = self.rundir.events
        return path.exists() and f'"kind": "{kind}"' in path.read_text()

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank."""
        return self.process.rank(number)

    def ended(self, *, seconds: float = 60) -> Trained:
        """What it left when it ends by itself in time."""
        status = self.process.status(seconds)
        assert status is not None, f"not ended in {seconds} s: {self.rundir.log.read_text()[-8000:]}"
        return Trained(self.rundir, status, self.rundir.log.read_text()[-8000:])


class Launched:
    """DeepSpeed's launcher and its ranks, in a session of their own."""

    def __init__(self, rundir: RunDir, num_processes: int) -> None:
        argv, env = _launching(rundir, num_processes)
        with rundir.log.open("wb") as log:
            self._process = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        self.pid = self._process.pid

    def rank(self, number: int) -> psutil.Process:
        """A child of the launcher."""
        children = psutil.Process(self.pid).children()
        return next(child for child in children if child.environ().get("RANK") == str(number))

    def status(self, seconds: float) -> int | None:
        """Its exit status; None when it is at work so many seconds from now."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def end(self) -> None:
        """Kills what is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Forked:
    """The ranks without a launcher, so that nobody ends them but themselves."""

    def __init__(self, rundir: RunDir, num_processes: int) -> None:
        self._ranks = forked.start(["train", str(rundir.path)], output=rundir.log, num_processes=num_processes)
        self.pid = self._ranks[0].pid or 0

    def rank(self, number: int) -> psutil.Process:
        """A process of ours."""
        return psutil.Process(self._ranks[number].pid)

    def status(self, seconds: float) -> int | None:
        """The first exit status that is not 0; None when one is at work so many seconds from now."""
        deadline = time.monotonic() + seconds
        for rank in self._ranks:
            rank.join(max(0.0, deadline - time.monotonic()))
        statuses = [rank.exitcode for rank in self._ranks]
        return None if None in statuses else next((status for status in statuses if status), 0)

    def end(self) -> None:
        """Kills them."""
        for rank in self._ranks:
            rank.kill()
            rank.join()


def _launching(rundir: RunDir, num_processes: int) -> tuple[list[str], dict[str, str]]:
    argv = command(rundir.path, num_processes=num_processes)
    env = {**os.environ, **environment(num_processes=num_processes), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    return argv, env


def one_sum(directory: Path, *, num_rows: int, **values: Any) -> Path:
    """A dataset with the same sum in every row."""
    row = {"prompt": "12+34=", "completion": "<think>12+34=46</think>46", "answer": "46", "task": "sums", "meta": {}, **values}
    for split in ("train", "held_out"):
        (directory / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * num_rows)
    return directory


def cold_start(*, steps: int = 8, **values: Any) -> dict[str, Any]:
    phase_config = {"steps": steps, "batch_size": 16, "router_bias_speed": 0.01, **values.pop("phase_config", {})}
    return {"phase": "cold_start", "phase_config": phase_config, **values}
