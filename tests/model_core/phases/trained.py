"""A model of a few thousand weights, and trainers run as they are in earnest: in their own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.launch import command, environment
from model_core.rundir import RunDir

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
    argv = [sys.executable, "-m", "model_core", "train", str(rundir.path)]
    if launcher or num_processes > 1:
        argv = command(rundir.path, num_processes=num_processes)
    env = {**os.environ, **environment(num_processes=num_processes), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    done = subprocess.run(argv, env=env, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    return Trained(rundir, done.returncode, done.stdout[-4000:] + done.stderr[-4000:])


def cold_start(*, steps: int = 8, **values: Any) -> dict[str, Any]:
    phase_config = {"steps": steps, "batch_size": 16, "router_bias_speed": 0.01, **values.pop("phase_config", {})}
    return {"phase": "cold_start", "phase_config": phase_config, **values}
