"""Evaluations: made whole or not at all; `training_app.evaluating` runs them."""

from __future__ import annotations

import shutil
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.problems import read_problems
from model_core.tasks import TASKS
from r1platform.lib.storage import evaluation_dir
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from r1platform.services import audit
from training_app.asking import ask_to_schedule
from training_app.endpoints import endpoint_checked
from training_app.models import TASK, Checkpoint, Evaluation, Upload
from training_app.reward_models import refuse_reward_model
from training_app.selectors.benchmark_files import benchmark_files
from training_app.states import MOVING_EVALUATIONS, EvaluationState
from training_app.transitions import evaluation_transition

LOOK_ROWS = 100
"""Rows that are read before an evaluation is made: a wrong field is said at once."""
TASK_PROBLEMS = 200
MAX_PROBLEMS = 100_000


@transaction.atomic
def evaluation_create(
    *,
    project: Project,
    user: User,
    benchmark: str,
    data: str = "",
    checkpoint: Checkpoint | None = None,
    endpoint: str = "",
    endpoint_model: str = "",
    endpoint_key: str = "",
    config: dict[str, Any] | None = None,
    task_config: dict[str, Any] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """An evaluation, queued. `data` names the file of a benchmark (its own by default), or the task of the benchmark `task`.

    Raises ConfigError, DataError, CheckpointError or UnknownName at the wrong field; nothing is then made.
    """
    cls = BENCHMARKS.get(benchmark, field="benchmark")
    parsed = cls.Config.parse(config or {}, prefix="config")
    try:
        made = cls(parsed)
    except ConfigError as error:
        raise ConfigError(error.message, field=f"config.{error.field}") from error
    if limit is not None and not 0 < limit <= MAX_PROBLEMS:
        raise ConfigError(f"Ask 1 to {MAX_PROBLEMS} problems, or leave it empty for all.", field="limit")
    if not 0 <= seed < 2**31:
        raise ConfigError("A seed is a whole number from 0 to 2147483647.", field="seed")
    upload: Upload | None = None
    if benchmark == TASK:
        data, task_config, limit = *_task(data, task_config or {}), limit or TASK_PROBLEMS
    else:
        data, upload = _file(project, made, data or benchmark, limit)
        task_config = {}
    source = _source(project, checkpoint, endpoint, endpoint_model, endpoint_key)
    evaluation = Evaluation.objects.create(
        project=project, benchmark=benchmark, data_name=data, upload=upload, task_config=task_config, config=parsed.resolved(),
        limit=limit, seed=seed, created_by=user, **source,
    )  # fmt: skip
    evaluation.refresh_from_db()
    _audit(evaluation, user, "evaluation.create", benchmark=benchmark, data=data, endpoint=source.get("endpoint", ""))
    ask_to_schedule()
    return evaluation


def _task(name: str, task_config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    cls = TASKS.get(name or "sums", field="data")
    return name or "sums", cls.Config.parse(task_config, prefix="task_config").resolved()


def _file(project: Project, benchmark: Any, name: str, limit: int | None) -> tuple[str, Upload | None]:
    """Name and upload of the file, whose first rows are as the benchmark wants them."""
    known = benchmark_files(project)
    if name not in known:
        there = ", ".join(known) or "none yet"
        raise DataError(f"There is no file of {name} at hand; there are: {there}. Add it under Datasets, Benchmarks.", field="data")
    file = known[name]
    if file.ending not in {".jsonl", ".json", ".ndjson"}:
        raise DataError(f"A benchmark is read from JSONL that is not packed; {file.file_name} is something else.", field="data")
    try:
        read_problems(benchmark, file.path, limit=min(limit or LOOK_ROWS, LOOK_ROWS))
    except DataError as error:
        raise DataError(error.message.replace(str(file.path), file.file_name), field="data") from error
    return name, Upload.objects.filter(pk=file.upload).first() if file.upload else None


def _source(
    project: Project, checkpoint: Checkpoint | None, endpoint: str, model: str, key: str
) -> dict[str, Any]:
    """Who answers. Raises CheckpointError or ConfigError at its field."""
    if (checkpoint is None) == (not endpoint.strip()):
        raise ConfigError("Choose a checkpoint, or give the address of an endpoint; one of both.", field="checkpoint")
    if checkpoint is None:
        for name, text, most in (("endpoint_model", model, 200), ("endpoint_key", key, 500)):
            if len(text) > most or (text and not text.isprintable()):
                raise ConfigError(f"At most {most} printable characters.", field=name)
        return {"endpoint": endpoint_checked(endpoint), "endpoint_model": model.strip(), "endpoint_key": key.strip()}
    if checkpoint.run.project_id != project.pk:
        raise CheckpointError("There is no such checkpoint in this project.", field="checkpoint")
    if checkpoint.removed_at is not None:
        raise CheckpointError(f"{checkpoint} was removed from disk to make room. Choose another.", field="checkpoint")
    refuse_reward_model(checkpoint, field="checkpoint")
    return {"checkpoint": checkpoint}


@transaction.atomic
def evaluation_stop(*, evaluation: Evaluation, user: User) -> None:
    """Ends it; what was answered is kept, and it can go on. Raises IllegalTransition."""
    reason = f"Stopped by {user.username}."
    if not evaluation_transition(evaluation=evaluation, to=EvaluationState.STOPPED, reason=reason, user=user):
        raise IllegalTransition("Evaluation", evaluation.pk, EvaluationState.STOPPED, EvaluationState.STOPPED)
    _audit(evaluation, user, "evaluation.stop")


@transaction.atomic
def evaluation_resume(*, evaluation: Evaluation, user: User, endpoint_key: str = "") -> None:
    """Queues one that was stopped, failed or lost: it asks only what was not answered. Raises IllegalTransition, ConfigError.

    The key of an endpoint was forgotten at its end and has to be given again.
    """
    if endpoint_key and not endpoint_key.isprintable():
        raise ConfigError("A key has printable characters only.", field="endpoint_key")
    if evaluation.endpoint:
        endpoint_checked(evaluation.endpoint)
    moved = evaluation_transition(
        evaluation=evaluation, to=EvaluationState.QUEUED, reason=f"Resumed by {user.username}.", user=user,
        fields={"endpoint_key": endpoint_key.strip(), "pid": None, "child_pid": None},
    )  # fmt: skip
    if not moved:
        raise IllegalTransition("Evaluation", evaluation.pk, EvaluationState.QUEUED, EvaluationState.QUEUED)
    _audit(evaluation, user, "evaluation.resume")
    ask_to_schedule()


@transaction.atomic
def evaluation_delete(*, evaluation: Evaluation, user: User) -> None:
    """Deletes an evaluation that has ended, with everything that was said. Raises IllegalTransition while it runs."""
    locked = Evaluation.objects.select_for_update(of=("self",)).select_related("project").get(pk=evaluation.pk)
    if locked.state in MOVING_EVALUATIONS:
        raise IllegalTransition("Evaluation", locked.pk, locked.state, "deleted")
    pk = locked.pk
    _audit(locked, user, "evaluation.delete", benchmark=locked.benchmark)
    locked.delete()
    transaction.on_commit(lambda: shutil.rmtree(evaluation_dir(pk), ignore_errors=True))


def _audit(evaluation: Evaluation, user: User, action: str, **detail: Any) -> None:
    audit(user=user, project=evaluation.project, action=action, target=f"evaluation:{evaluation.pk}", detail=detail)
