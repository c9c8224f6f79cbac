"""The planner against the memory of real training steps: three presets' geometries, in one process and in two.

The steps run in processes of their own; `measured` says what is measured. Medium has two blocks, four experts and a small
dense MLP, so that it stays below 1 GB; the planner is asked about the same shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings

from model_core.config import PRESETS, ModelConfig, RunConfig
from model_core.launch import free_port
from model_core.planner import DenseModel, Work, memory

LIMIT_SECONDS = 150
WITHIN = 0.15
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"vocab_size": 64},
    "small": {**PRESETS["small"], "vocab_size": 2048},
    "medium": {**PRESETS["medium"], "vocab_size": 2048, "num_hidden_layers": 2, "n_routed_experts": 4, "intermediate_size": 1024},
    **{kind: {
        "model_type": kind, "vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024,
    } for kind in ("qwen2", "qwen3", "llama")},
}
TWO = {"num_processes": 2}
RECOMPUTED = {"gradient_checkpointing": True}


def case(model: str, rows: int, tokens: int, *, optimizer: str = "adamw", **run: Any) -> dict[str, Any]:
    return {"model": MODELS[model], "rows": rows, "tokens": tokens, "optimizer": optimizer, "run": run}


ALONE = {"tiny": case("tiny", 16, 52, optimizer="muon"), "small": case("small", 4, 128), "medium": case("medium", 1, 160)}
MORE_ALONE = {
    "small, checkpointed": case("small", 4, 128, precision=RECOMPUTED), "Qwen2": case("qwen2", 4, 64),
    "Qwen2 under Muon": case("qwen2", 4, 128, optimizer="muon"), "Qwen2, long": case("qwen2", 1, 512),
    "Qwen3": case("qwen3", 8, 128), "Llama, checkpointed": case("llama", 8, 128, precision=RECOMPUTED),
}  # fmt: skip
TOGETHER = {"tiny, expert 2": case("tiny", 16, 52, parallel={**TWO, "expert": 2})}
MORE_TOGETHER = {
    "small, ZeRO 1": case("small", 4, 128, parallel=TWO),
    "medium, ZeRO 1": case("medium", 1, 160, parallel=TWO), "medium, expert 2": case("medium", 1, 160, parallel={**TWO, "expert": 2}),
    "small, ZeRO 2": case("small", 4, 128, parallel={**TWO, "zero_stage": 2}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("num_processes", "cases"), [
        (1, ALONE), pytest.param(2, TOGETHER, marks=pytest.mark.slow), pytest.param(1, MORE_ALONE, marks=pytest.mark.slow),
        pytest.param(2, MORE_TOGETHER, marks=pytest.mark.slow),
    ],
)
def test_the_planned_memory_is_the_measured(num_processes: int, cases: dict[str, dict[str, Any]]) -> None:
    ratios = {}
    for rank, measured in enumerate(run_steps(list(cases.values()), num_processes)):
        for (name, asked), num_bytes in zip(cases.items(), measured, strict=True):
            ratios[f"{name}, rank {rank}"] = planned(asked) / num_bytes
    assert all(abs(ratio - 1) <= WITHIN for ratio in ratios.values()), ratios


def planned(asked: dict[str, Any]) -> int:
    config = RunConfig.model_validate({"phase": "cold_start", **asked["run"]})
    work = Work(micro_tokens=asked["rows"] * asked["tokens"], optimizer=asked["optimizer"])
    is_student = "model_type" in asked["model"]
    shape = DenseModel.of(asked["model"]) if is_student else ModelConfig.parse(asked["model"])
    return memory(shape, config.parallel, config.precision, work).peak.total


def run_steps(cases: list[dict[str, Any]], num_processes: int) -> list[list[int]]:
    """Bytes of each case, by rank. Large blocks are always mapped, so that each is given back at once."""
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.model_core.planner.measured", json.dumps(cases)], cwd=settings.BASE_DIR, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1048576",
            })
        for rank in range(num_processes)
    ]  # fmt: skip
    try:
        ended = [rank.communicate(timeout=LIMIT_SECONDS) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert not any(rank.returncode for rank in ranks), ended
    return [[json.loads(line)["bytes"] for line in out.splitlines() if line.startswith('{"rank"')] for out, _errors in ended]
