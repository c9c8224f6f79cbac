"""What the process of an evaluation is given: its questions, the command of `python -m model_core evaluate`, its environment."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from model_core.config.base import StrictModel
from model_core.errors import CheckpointError, DataError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.benchmarks._types import Problem
from model_core.evaluation.problems import digest, read_problems
from model_core.launch import environment
from model_core.rundir import RunDir
from model_core.sources._hosts import HOSTS
from model_core.tasks import TASKS
from r1platform.lib.processes import child_environment
from training_app.endpoints import hosts_of
from training_app.evaluation_dir import EvaluationDir
from training_app.models import TASK, Evaluation
from training_app.selectors.benchmark_files import benchmark_files
from training_app.services.runs import checkpoint_dir


def questions_lay_out(evaluation: Evaluation, directory: EvaluationDir) -> tuple[list[Problem], str]:
    """Puts the data in its place; returns its problems and its SHA-256. Raises DataError or ConfigError."""
    directory.path.mkdir(parents=True, exist_ok=True)
    if not directory.data.exists():
        partial = directory.data.with_suffix(".part")
        partial.unlink(missing_ok=True)
        if evaluation.benchmark == TASK:
            partial.write_text("".join(f"{json.dumps(row)}\n" for row in task_rows(evaluation)), encoding="utf-8")
        else:
            file = benchmark_files(evaluation.project).get(evaluation.data_name)
            if file is None:
                raise DataError(f"The file of {evaluation.data_name} is not at hand any more.")
            partial.symlink_to(file.path)
        partial.rename(directory.data)
    sha256 = digest(directory.data)
    if evaluation.data_sha256 not in {"", sha256}:
        raise DataError("The file has changed since the evaluation began; start another one.")
    return read_problems(benchmark_of(evaluation), directory.data, limit=evaluation.limit), sha256


def benchmark_of(evaluation: Evaluation) -> Any:
    """The benchmark with the evaluation's settings."""
    cls = BENCHMARKS.get(evaluation.benchmark)
    config: StrictModel = cls.Config.parse(evaluation.config)
    return cls(config)


def task_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Held-out problems of the task, the same for one seed. Raises ConfigError when there are not so many."""
    cls = TASKS.get(evaluation.data_name)
    made = cls(cls.Config.parse(evaluation.task_config, prefix="task_config"))
    assert evaluation.limit is not None, "of a task a number of problems is asked"
    found = (row for split, row in made.generate(evaluation.seed, 0, evaluation.limit) if split == "held_out")
    return itertools.islice(found, evaluation.limit)


def command_of(evaluation: Evaluation, directory: EvaluationDir) -> list[str]:
    """The argument list, which also works by hand. Raises CheckpointError when the checkpoint is not on this machine."""
    argv = [sys.executable, "-m", "model_core", "evaluate", "--benchmark", evaluation.benchmark, "--data", str(directory.data),
            "--json", str(directory.result), "--fields", json.dumps(evaluation.config), "--seed", str(evaluation.seed)]  # fmt: skip
    if evaluation.limit is not None:
        argv += ["--limit", str(evaluation.limit)]
    if evaluation.checkpoint is None:
        named = ["--model", evaluation.endpoint_model] if evaluation.endpoint_model else []
        return [*argv, "--endpoint", evaluation.endpoint, *named]
    if not is_here(evaluation):
        raise CheckpointError(f"{evaluation.checkpoint} is not complete on this node. Choose another checkpoint.")
    return [*argv, "--checkpoint", str(checkpoint_dir(evaluation.checkpoint))]


def is_here(evaluation: Evaluation) -> bool:
    """Whether the checkpoint's files are on this machine, complete."""
    if evaluation.checkpoint is None:
        return True
    found = checkpoint_dir(evaluation.checkpoint)
    return found in RunDir(found.parents[1]).complete_checkpoints()


def environment_of(evaluation: Evaluation, directory: EvaluationDir, *, gpus: list[int]) -> dict[str, str]:
    """What its process inherits. One that asks an endpoint reaches that host and no other, and has only the key that was given."""
    made = child_environment(os.environ, mark=directory.path) | environment()
    made |= {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), "OPENAI_API_KEY": evaluation.endpoint_key}
    if evaluation.checkpoint is None:
        made |= {HOSTS: ",".join(hosts_of(evaluation.endpoint)), "NO_PROXY": "*", "no_proxy": "*"}
    return made
