"""What people do with runs. Each verb writes what is wanted; the scheduler and the supervisor make it so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from model_core.config import RunConfig
from model_core.config.gate import benchmark_of
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.phases import PHASES
from model_core.rundir import RunDir
from r1platform.lib.storage import run_dir
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from r1platform.services import audit
from training_app.asking import ask_to_schedule
from training_app.models import Checkpoint, DatasetVersion, PhaseRun, Upload
from training_app.reward_models import refuse_reward_model, reward_phase, with_reward_model
from training_app.states import LIVE_ATTEMPTS, LIVE_LAUNCHES, LIVE_RUNS, Desired, GateVerdict, LaunchState, RunState, VersionState
from training_app.transitions import launch_transition, run_transition

MAX_NAME_CHARS = 120
MAX_TAGS = 20
MAX_TAG_CHARS = 40
MAX_REASON_CHARS = 2000


@transaction.atomic
def run_create(
    *,
    project: Project,
    user: User,
    name: str,
    phase: str,
    config: dict[str, Any],
    dataset_version: DatasetVersion | None = None,
    starts_from: Checkpoint | None = None,
    rollouts_from: Checkpoint | None = None,
    budget_device_seconds: float | None = None,
    benchmark_data: Upload | None = None,
) -> PhaseRun:
    """A single run outside a pipeline, queued; its gate is that of its configuration.

    Raises ConfigError, DataError or CheckpointError at the wrong field.
    """
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise ConfigError(f"A run's name has 1 to {MAX_NAME_CHARS} characters; this one has {len(name)}.", field="name")
    parsed = with_reward_model(RunConfig.parse({**config, "phase": phase}), project)
    check_inputs(project, parsed, dataset_version, starts_from, rollouts_from)
    benchmark_data = benchmark_file(parsed, project, benchmark_data, "")
    resolved = with_budget(parsed, device_seconds=budget_device_seconds)
    run = PhaseRun.objects.create(
        project=project, name=name, phase=phase, config=resolved, dataset_version=dataset_version,
        starts_from=starts_from, rollouts_from=rollouts_from, num_processes=parsed.parallel.num_processes,
        budget_device_seconds=resolved["budget"]["device_seconds"], gate_metric=parsed.gate.metric,
        gate_threshold=parsed.gate.threshold, gate_direction=parsed.gate.direction, benchmark_data=benchmark_data,
        gate_verdict=GateVerdict.PENDING if parsed.gate.metric else GateVerdict.NONE, created_by=user,
    )  # fmt: skip
    audit(user=user, project=project, action="run.create", target=f"run:{run.pk}", detail={"phase": phase})
    ask_to_schedule()
    return run


def check_inputs(
    project: Project,
    config: RunConfig,
    dataset_version: DatasetVersion | None,
    starts_from: Checkpoint | None,
    rollouts_from: Checkpoint | None,
) -> None:
    """Raises when what the phase needs is missing, is not ready, or belongs to another project."""
    needs = PHASES.get(config.phase).needs
    check_version(project, dataset_version, required=bool(needs["dataset"]))
    for field, found in (("start_from", starts_from), ("rollouts_from", rollouts_from)):
        column = "starts_from" if field == "start_from" else field
        if found is None:
            if needs[field] == "required":
                title = PHASES.get(config.phase).title
                raise CheckpointError(f"{title} needs a checkpoint here; choose one of an earlier run.", field=column)
        elif needs[field] == "no":
            raise CheckpointError("This phase takes no checkpoint here; leave it empty.", field=column)
        else:
            check_checkpoint(project, found, field=column)
    check_any_source(config.phase, starts_from, rollouts_from, field="starts_from")


def check_checkpoint(project: Project, found: Checkpoint, *, field: str) -> None:
    """Raises CheckpointError unless it is of this project, on disk, and of a model that writes."""
    if found.run.project_id != project.pk:
        raise CheckpointError("There is no such checkpoint in this project.", field=field)
    if found.removed_at is not None:
        raise CheckpointError(f"{found} was removed from disk to make room. Choose another.", field=field)
    refuse_reward_model(found, field=field)


def benchmark_file(config: RunConfig, project: Project, given: Upload | None, field: str) -> Upload | None:
    """The upload that is named, else the project's file of that benchmark; None when the gate names no benchmark.

    Raises DataError at `field` + "benchmark_data".
    """
    name = benchmark_of(config)
    if not name:
        return None
    found = given or Upload.objects.filter(project=project, benchmark=name).first()
    if found is None:
        raise DataError(f"The gate compares {name}, and this project has no file of it. Upload its rows as JSONL, and name them "
                        "here.", field=f"{field}benchmark_data")  # fmt: skip
    if found.project_id != project.pk:
        raise DataError("There is no such upload in this project.", field=f"{field}benchmark_data")
    if found.format != "jsonl":
        raise DataError(f"A benchmark is read from JSONL; {found.file_name} is {found.format}.", field=f"{field}benchmark_data")
    return found


def check_any_source(phase: str, starts_from: object, rollouts_from: object, *, field: str) -> None:
    """Raises CheckpointError when the phase takes its model from one of two places and neither is named."""
    kind = PHASES.get(phase)
    if kind.needs.get("any_source") and starts_from is None and rollouts_from is None:
        message = f"{kind.title} starts from a checkpoint, or trains new weights on what one says; name one."
        raise CheckpointError(message, field=field)


def check_version(project: Project, version: DatasetVersion | None, *, required: bool) -> None:
    """Raises DataError unless the version is of this project and not failed; one on its way is fine."""
    if version is None:
        if required:
            raise DataError("This phase learns from a dataset version; choose one.", field="dataset_version")
        return
    if version.dataset.project_id != project.pk:
        raise DataError("There is no such dataset version in this project.", field="dataset_version")
    if version.state in {VersionState.FAILED, VersionState.STOPPED}:
        raise DataError(
            f"{version} is {version.get_state_display().lower()}: {version.state_reason} Choose a version that is ready.",
            field="dataset_version",
        )


def with_budget(config: RunConfig, *, price: float | None = None, **limits: float | None) -> dict[str, Any]:
    """The resolved configuration with the smaller of its own limit and the given one in each unit; `price` is what an hour of a
    device costs where the configuration does not say."""
    resolved = config.resolved()
    budget = resolved["budget"]
    budget["dollars_per_device_hour"] = budget["dollars_per_device_hour"] or price
    for unit, limit in limits.items():
        if limit is None:
            continue
        if limit <= 0:
            raise ConfigError(
                f"A budget is above 0 {unit.replace('device_', 'device-')}; leave it empty for none.", field=f"budget_{unit}"
            )
        own = budget[unit]
        budget[unit] = min(limit, own) if own else limit
    if budget["tokens"]:
        budget["tokens"] = max(round(budget["tokens"]), 1)
    return resolved


@transaction.atomic
def run_stop(*, run: PhaseRun, user: User, reason: str = "") -> None:
    """Asks a running run to write a checkpoint and end; ends one that waits at once. Raises IllegalTransition."""
    _want(run, user, Desired.STOP, said_by("Stopped", user, reason))


@transaction.atomic
def run_pause(*, run: PhaseRun, user: User, reason: str = "") -> None:
    """Like stop, but the run can be resumed and its launch waits for it. Raises IllegalTransition."""
    _want(run, user, Desired.PAUSE, said_by("Paused", user, reason))


def said_by(what: str, user: User, reason: str) -> str:
    """What a move's history keeps: who did it and, where they say so, why."""
    reason = reason.strip()[:MAX_REASON_CHARS]
    return f"{what} by {user.username}: {reason}" if reason else f"{what} by {user.username}."


def _want(run: PhaseRun, user: User, desired: str, reason: str) -> None:
    locked = locked_run(run)
    to = RunState.STOPPED if desired == Desired.STOP else RunState.PAUSED
    if locked.state in LIVE_RUNS:
        if locked.desired == Desired.STOP and desired == Desired.PAUSE:
            raise IllegalTransition("Run", run.pk, "stopping", to)
        PhaseRun.objects.filter(pk=run.pk).update(desired=desired)
        if locked.state != RunState.STOPPING:
            run_transition(run=locked, to=RunState.STOPPING, reason=reason, user=user)
    elif not run_transition(run=locked, to=to, reason=reason, user=user, fields={"desired": desired}):
        raise IllegalTransition("Run", run.pk, locked.state, to)
    run_audit(locked, user, f"run.{desired}", reason=reason)


@transaction.atomic
def run_resume(*, run: PhaseRun, user: User, reason: str = "") -> None:
    """Queues a paused run; it goes on from its last checkpoint. Raises IllegalTransition.

    One that was asked to pause and still writes its checkpoint is queued as soon as that is there.
    """
    locked = locked_run(run)
    if locked.state == RunState.PAUSED:
        _queue(locked, user, said_by("Resumed", user, reason))
    elif locked.state in LIVE_RUNS and locked.desired == Desired.PAUSE:
        PhaseRun.objects.filter(pk=run.pk).update(desired=Desired.RUN)
        locked.attempts.filter(state__in=LIVE_ATTEMPTS, stop_asked_at=None).update(stop_asked_at=Now())
    else:
        raise IllegalTransition("Run", run.pk, locked.state, RunState.QUEUED)
    run_audit(locked, user, "run.resume", reason=said_by("Resumed", user, reason))


@transaction.atomic
def run_retry(*, run: PhaseRun, user: User, reason: str = "") -> None:
    """Queues a run that ended without success. Raises IllegalTransition for one that runs or succeeded."""
    locked = locked_run(run)
    if locked.state not in {RunState.FAILED, RunState.LOST, RunState.STOPPED, RunState.GATE_FAILED}:
        raise IllegalTransition("Run", run.pk, locked.state, RunState.QUEUED)
    if is_replaced(locked):
        raise IllegalTransition("Run", run.pk, "replaced by another one with other settings", RunState.QUEUED)
    if locked.launch_id is not None:
        launch_revive(locked, user, f"{locked.name} is tried again.")
    _queue(locked, user, said_by("Retried", user, reason))
    run_audit(locked, user, "run.retry", reason=said_by("Retried", user, reason))


def _queue(run: PhaseRun, user: User, reason: str) -> None:
    to = RunState.WAITING if run.state == RunState.STOPPED and _lacks_inputs(run) else RunState.QUEUED
    gate = {"gate_verdict": GateVerdict.PENDING, "gate_measured": None} if run.gate_metric else {}
    run_transition(run=run, to=to, reason=reason, user=user, fields={"desired": Desired.RUN, **gate})
    if run.launch is not None and run.launch.state == LaunchState.PAUSED:
        launch_transition(launch=run.launch, to=LaunchState.RUNNING, reason=reason, user=user)
    ask_to_schedule()


def _lacks_inputs(run: PhaseRun) -> bool:
    """Whether it was stopped before the phases that it builds on had succeeded."""
    phase = run.pipeline_phase
    if phase is None:
        return False
    pairs = ((phase.starts_from_id, run.starts_from_id), (phase.rollouts_from_id, run.rollouts_from_id))
    return bool(reward_phase(run.config)) or any(source is not None and found is None for source, found in pairs)


def is_replaced(run: PhaseRun) -> bool:
    """Whether another run with other settings stands in for it."""
    return replacement_of(run) is not None


def replacement_of(run: PhaseRun) -> PhaseRun | None:
    """The run with other settings that stands in for it."""
    return PhaseRun.objects.filter(retry_of=run.pk).select_related("created_by").first()


def launch_revive(run: PhaseRun, user: User, reason: str) -> None:
    """A launch that ended because of this run goes on with it."""
    launch = run.launch
    assert launch is not None
    if launch.state in {LaunchState.FAILED, LaunchState.STOPPED, LaunchState.HELD}:
        if launch.pipeline.launches.filter(state__in=LIVE_LAUNCHES).exclude(pk=launch.pk).exists():
            raise ConfigError(f"{launch.pipeline.name} has another launch that is live; stop that one first.")
        launch_transition(launch=launch, to=LaunchState.RUNNING, reason=reason, user=user)


def again(name: str) -> str:
    """The name that a clone gets."""
    return f"{name[: MAX_NAME_CHARS - 6]} again"


@transaction.atomic
def run_clone(*, run: PhaseRun, user: User) -> PhaseRun:
    """A new single run with the configuration and the inputs of `run`."""
    return run_create(
        project=run.project, user=user, name=again(run.name), phase=run.phase, config=run.config,
        dataset_version=run.dataset_version, starts_from=run.starts_from, rollouts_from=run.rollouts_from,
        benchmark_data=run.benchmark_data,
    )  # fmt: skip


def run_tags_set(*, run: PhaseRun, user: User, tags: list[str]) -> None:
    """Replaces the tags. Raises ConfigError for more than 20 or one of more than 40 characters."""
    kept = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    if len(kept) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARS for tag in kept):
        raise ConfigError(
            f"A run has at most {MAX_TAGS} tags of at most {MAX_TAG_CHARS} characters each.", field="tags"
        )
    PhaseRun.objects.filter(pk=run.pk).update(tags=kept)
    run_audit(run, user, "run.tags", tags=kept)


def run_notes_set(*, run: PhaseRun, user: User, notes: str) -> None:
    """Replaces the notes."""
    PhaseRun.objects.filter(pk=run.pk).update(notes=notes)
    run_audit(run, user, "run.notes")


def checkpoint_dir(checkpoint: Checkpoint) -> Path:
    """Where a checkpoint lies; it follows from run, attempt and step."""
    return RunDir(run_dir(checkpoint.run_id, checkpoint.attempt.number)).checkpoint(checkpoint.step)


def checkpoint_model_dir(checkpoint: Checkpoint) -> Path:
    """The Hugging Face directory of a checkpoint."""
    return checkpoint_dir(checkpoint) / "model"


def locked_run(run: PhaseRun) -> PhaseRun:
    """The run as it is now, locked before its launch as everybody does."""
    return (
        PhaseRun.objects.select_for_update(of=("self",))
        .select_related("launch__pipeline", "pipeline_phase", "project")
        .get(pk=run.pk)
    )


def run_audit(run: PhaseRun, user: User, action: str, **detail: Any) -> None:
    """Writes down who did what with a run."""
    audit(user=user, project=run.project, action=action, target=f"run:{run.pk}", detail=detail)
