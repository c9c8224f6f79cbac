"""Gates: what a plan may set, and what people do with a run that its gate holds: go on, try again with other settings, roll back.

Each of the three locks the run and looks again, so that of several people at once one does it and the others are told who did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from model_core.config import RunConfig
from model_core.errors import CheckpointError, ConfigError
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from training_app.asking import ask_to_schedule
from training_app.models import Checkpoint, Launch, PhaseRun, PipelinePhase, Upload
from training_app.reward_models import with_reward_model
from training_app.scheduling import final_checkpoint
from training_app.services.runs import (
    benchmark_file,
    check_inputs,
    is_replaced,
    launch_revive,
    locked_run,
    replacement_of,
    run_audit,
    with_budget,
)
from training_app.states import GateVerdict, LaunchState, RunState
from training_app.transitions import launch_refresh, launch_transition, run_transition

GATE_KEYS = ("metric", "threshold", "direction", "stop_early")
_COLUMNS = {"stop_early": "stop_early"}
CHANGEABLE = frozenset({RunState.GATE_FAILED, RunState.FAILED, RunState.LOST, RunState.STOPPED})
"""States from which a run may be tried again with other settings."""


class NotHeld(IllegalTransition):
    """Somebody else was first, or the gate does not hold the run: the sentence says what became of it."""

    def __init__(self, run: PhaseRun) -> None:
        super().__init__("Run", run.pk, run.state, RunState.SUCCEEDED)
        replaced = replacement_of(run)
        if replaced is not None:
            by = f" by {replaced.created_by.username}" if replaced.created_by else ""
            said = f"Run {run.pk} was tried again with other settings{by}, as run {replaced.pk}."
        else:
            last = run.transitions.select_related("user").order_by("-id").first()
            by = f" by {last.user.username}" if last is not None and last.user is not None else ""
            said = f"Run {run.pk} is not held at its gate; it is {run.get_state_display().lower()}{by}: {run.state_reason}"
        self.args = (f"{said.rstrip('. :')}. Nothing was changed.",)


def parse_gated(
    values: Mapping[str, Any], gate: Mapping[str, Any], *, project: Project, benchmark_data: Upload | None, prefix: str, field: str,
    judges: Collection[str] = (),
) -> tuple[RunConfig, Upload | None]:  # fmt: skip
    """The configuration with this gate in it, and the file of the benchmark that the gate names. `judges` are earlier phases that
    make reward models.

    Raises ConfigError, DataError or UnknownName: of the gate at `field` + "gate_metric" …, of the rest below `prefix`.
    """
    own = values.get("gate") or {}
    merged = {**own, **{key: value for key, value in gate.items() if value is not None or key == "threshold"}}
    try:
        parsed = RunConfig.parse({**values, "gate": merged}, prefix=prefix)
        config = with_reward_model(parsed, project, prefix=prefix, earlier=judges)
    except ConfigError as error:
        where = f"{prefix}.gate." if prefix else "gate."
        key = error.field.removeprefix(where)
        if not error.field.startswith(where) or key not in GATE_KEYS:
            raise
        raise ConfigError(error.message, field=f"{field}{_COLUMNS.get(key, f'gate_{key}')}") from error
    return config, benchmark_file(config, project, benchmark_data, field)


def gate_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a phase that the block `gate` of a configuration says in its own words."""
    gate = config.get("gate")
    if not isinstance(gate, Mapping):
        return {}
    return {_COLUMNS.get(key, f"gate_{key}"): gate[key] for key in GATE_KEYS if key in gate}


def gate_block(row: PhaseRun | PipelinePhase) -> dict[str, Any]:
    """The block `gate` of a configuration as the columns of its row say it, which are what counts."""
    own = row.config.get("gate", {})
    return {**own, "metric": row.gate_metric, "threshold": row.gate_threshold, "direction": row.gate_direction}


def gate_columns(config: RunConfig) -> dict[str, Any]:
    """The columns of a run or phase that hold its gate."""
    gate = config.gate
    return {"gate_metric": gate.metric, "gate_threshold": gate.threshold, "gate_direction": gate.direction}


def _locked(run: PhaseRun, states: Collection[str]) -> PhaseRun:
    """The run and its launch as they are now, locked. Raises NotHeld unless it is in one of `states` and nothing stands in for
    it."""
    locked = locked_run(run)
    if locked.state not in states or is_replaced(locked):
        raise NotHeld(locked)
    if locked.launch_id is not None:  # what the run's query joined may be from before it got the lock
        launches = Launch.objects.select_for_update(of=("self",)).select_related("pipeline")
        locked.launch = launches.get(pk=locked.launch_id)
    return locked


def _reasoned(reason: str, what: str) -> str:
    if not reason.strip():
        raise ConfigError(f"Say why {what}: the reason is kept in the history.", field="reason")
    return reason.strip()


@transaction.atomic
def gate_override(*, run: PhaseRun, user: User, reason: str) -> None:
    """Lets a run pass that its gate held; who and why stay in its history. Raises NotHeld, ConfigError."""
    reason = _reasoned(reason, "the gate is overridden")
    locked = _locked(run, {RunState.GATE_FAILED})
    _passed(locked, user, f"The gate is overridden: {reason}", f"The gate of {locked.name} is overridden.",
            {"gate_verdict": GateVerdict.OVERRIDDEN})  # fmt: skip
    run_audit(locked, user, "run.override_gate", reason=reason)


@transaction.atomic
def gate_roll_back(*, run: PhaseRun, user: User, checkpoint: Checkpoint, reason: str) -> None:
    """Takes an earlier checkpoint as the result of a run that its gate holds; the pipeline goes on with that one, or ends with it.

    Raises NotHeld, ConfigError without a reason, CheckpointError for one that is none of `roll_back_choices`.
    """
    reason = _reasoned(reason, "it is rolled back")
    locked = _locked(run, {RunState.GATE_FAILED})
    if checkpoint.pk not in {choice.pk for choice in roll_back_choices(locked)}:
        raise CheckpointError(
            f"{checkpoint} is no earlier checkpoint of this run or of the phases before it, or it is no longer on disk. Choose "
            "one of those that are offered.", field="checkpoint",
        )  # fmt: skip
    said = f"Rolled back to step {checkpoint.step} of run {checkpoint.run_id} ({checkpoint.run.name}): {reason}"
    _passed(locked, user, said, f"{locked.name} is rolled back to step {checkpoint.step} of run {checkpoint.run_id}.",
            {"gate_verdict": GateVerdict.ROLLED_BACK, "result_checkpoint": checkpoint})  # fmt: skip
    run_audit(locked, user, "run.roll_back", reason=reason, checkpoint=checkpoint.pk)


def roll_back_choices(run: PhaseRun) -> list[Checkpoint]:
    """What a run can be rolled back to: what the phases before it left, the nearest first, then its own earlier checkpoints that
    are on disk, the best by its rule first."""
    before = [run.starts_from, run.rollouts_from]
    if run.launch_id is not None:
        earlier = PhaseRun.objects.filter(launch=run.launch_id, position__lt=run.position, state=RunState.SUCCEEDED)
        before += [final_checkpoint(one) for one in earlier.select_related("result_checkpoint__run").order_by("-position", "-pk")]
    own = list(run.checkpoints.filter(removed_at=None, is_final=False).select_related("run"))
    key = str(run.config.get("checkpoint", {}).get("metric", "quality"))
    own.sort(key=lambda one: (one.metrics.get(key) is None, -(one.metrics.get(key) or 0.0), -one.step))
    kept = [one for one in before if one is not None and one.removed_at is None]
    return list({one.pk: one for one in (*kept, *own)}.values())


def _passed(run: PhaseRun, user: User, reason: str, launch_reason: str, fields: dict[str, Any]) -> None:
    """A held run counts as succeeded, and its launch goes on."""
    launch = run.launch
    if launch is not None and launch.state == LaunchState.HELD:
        launch_transition(launch=launch, to=LaunchState.RUNNING, reason=launch_reason, user=user)
    run_transition(run=run, to=RunState.SUCCEEDED, reason=reason, user=user, fields=fields)
    if launch is not None:
        launch_refresh(launch_id=launch.pk)
    ask_to_schedule()


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the changes in it, block by block: of a block, what is not given stays."""
    return {**config, **{
        key: {**config[key], **value} if isinstance(value, Mapping) and isinstance(config.get(key), Mapping) else value
        for key, value in changes.items()
    }}  # fmt: skip


@transaction.atomic
def run_retry_changed(*, run: PhaseRun, user: User, config: dict[str, Any]) -> PhaseRun:
    """A new run in the place of one that its gate held, or that failed, was lost or stopped: the same phase, inputs and gate, other
    settings, its budget anew. The old run stays as it is, and each says which the other is.

    Raises NotHeld, ConfigError or UnknownName at the field, also when nothing is changed.
    """
    locked = _locked(run, CHANGEABLE)
    gate = config.get("gate")
    as_it_was = gate is None or gate == locked.config.get("gate")
    parsed = RunConfig.parse({**config, "phase": locked.phase, "gate": gate_block(locked) if as_it_was else gate})
    parsed = with_reward_model(parsed, locked.project)
    if gate_columns(parsed) != {key: getattr(locked, key) for key in gate_columns(parsed)}:
        raise ConfigError("The gate stays as it is when a run is tried again; change it in the plan, or override it with a reason.",
                          field="gate.metric")  # fmt: skip
    check_inputs(locked.project, parsed, locked.dataset_version, locked.starts_from, locked.rollouts_from)
    resolved = with_budget(parsed)
    if resolved == RunConfig.parse({**locked.config, "gate": gate_block(locked)}).resolved():
        raise ConfigError("No setting is changed. Change one, or run it again as it is.", field="config")
    made = PhaseRun.objects.create(
        project=locked.project, name=locked.name, phase=locked.phase, launch=locked.launch, pipeline_phase=locked.pipeline_phase,
        position=locked.position, config=resolved, dataset_version=locked.dataset_version, starts_from=locked.starts_from,
        rollouts_from=locked.rollouts_from, num_processes=parsed.parallel.num_processes,
        budget_device_seconds=resolved["budget"]["device_seconds"], gate_metric=locked.gate_metric,
        gate_threshold=locked.gate_threshold, gate_direction=locked.gate_direction, gate_action=locked.gate_action,
        gate_verdict=GateVerdict.PENDING if locked.gate_metric else GateVerdict.NONE, benchmark_data=locked.benchmark_data,
        retry_of=locked, created_by=user,
    )  # fmt: skip
    if locked.launch is not None:
        launch_revive(locked, user, f"{locked.name} is tried again with other settings, as run {made.pk}.")
        launch_refresh(launch_id=locked.launch.pk)
    run_audit(locked, user, "run.retry_changed", made=made.pk)
    ask_to_schedule()
    return made
