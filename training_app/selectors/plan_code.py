"""A plan as a shell script of the library: each phase's `config.json`, then `python -m model_core train`."""

from __future__ import annotations

import json
from typing import Any

from model_core.config import RunConfig, RunPaths
from training_app.models import Pipeline, PipelinePhase
from training_app.reward_models import OF_PHASE, reward_phase

_HEAD = """#!/bin/sh
# Phases one after another, without the platform; gates are measured and left to you to compare.
set -e
newest() { ls -d "runs/$1"/checkpoints/step_* | tail -n 1; }  # a phase's last checkpoint
"""


def pipeline_commands(pipeline: Pipeline) -> str:
    """The script. Datasets stand under `datasets/`, as `python -m model_core prepare` makes them, and checkpoints that the plan
    goes on from under `checkpoints/`, as they are downloaded."""
    phases = pipeline.phases.select_related("starts_from", "rollouts_from", "dataset_version").order_by("position")
    return _HEAD + "".join(_phase(phase) for phase in phases)


def _phase(phase: PipelinePhase) -> str:
    """Its config.json, in which marks stand for checkpoints that are only there when it runs."""
    places: dict[str, str] = {}
    paths: dict[str, Any] = {"dataset": f"datasets/{phase.dataset_version_id}/data" if phase.dataset_version_id else None}
    for key, source in (("start_from", phase.starts_from), ("rollouts_from", phase.rollouts_from)):
        if source is not None:
            places[f"@{key}@"], paths[key] = source.name, f"@{key}@"
    if phase.from_checkpoint_id is not None:
        paths["start_from"] = f"checkpoints/{phase.from_checkpoint_id}"
    parallel = {**phase.config.get("parallel", {}), "num_processes": phase.num_processes}
    run = RunConfig.parse({**phase.config, "phase": phase.phase, "parallel": parallel}).resolved()
    text = json.dumps({"run": run, "paths": RunPaths.parse(paths).resolved()}, indent=1, ensure_ascii=False)
    if judge := reward_phase(phase.config):
        text = text.replace(f'"{OF_PHASE}{judge}"', '"@judge@"')
        places["@judge@"] = judge
    fill = "".join(f" -e \"s|{mark}|$(newest {name})|\"" for mark, name in places.items())
    many = f"deepspeed --num_gpus {phase.num_processes} --module model_core train"
    train = "python -m model_core train" if phase.num_processes == 1 else many
    write = f"sed{fill} > runs/{phase.name}/config.json" if fill else f"cat > runs/{phase.name}/config.json"
    return f"\nmkdir -p runs/{phase.name}\n{write} <<'R1_CONFIG'\n{text}\nR1_CONFIG\n{train} runs/{phase.name}\n"
