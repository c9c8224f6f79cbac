"""Changing the plan of a pipeline: phases added, removed and moved, the whole copied, one phase run alone.

Launches that exist keep what they were launched with. A plan is not taken apart while a launch of it is live.
"""

from __future__ import annotations

from math import floor
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F

from model_core.errors import CheckpointError, ConfigError
from r1platform.services import audit
from training_app.models import Checkpoint, PhaseRun, Pipeline, PipelinePhase
from training_app.reward_models import reward_phase, rewarded_by
from training_app.scheduling import final_checkpoint
from training_app.services.gates import gate_block
from training_app.services.pipelines import BUDGETS, AlreadyLive, phase_checkpoint, phase_create, phase_sources, pipeline_create
from training_app.services.runs import run_create
from training_app.states import LIVE_LAUNCHES, RunState

LEAST_SHARE = 0.001
UNITS = ("device_seconds", "wall_seconds", "dollars", "tokens")


def pipeline_spec(pipeline: Pipeline) -> dict[str, Any]:
    """The plan as `POST /api/v1/pipelines/` takes it; dataset versions, checkpoints and uploads by their ids."""
    phases = pipeline.phases.select_related("starts_from", "rollouts_from").order_by("position")
    budgets = {name: value for name in BUDGETS if (value := getattr(pipeline, name)) is not None}
    return {
        "name": pipeline.name, "description": pipeline.description, "seed": pipeline.seed, **budgets,
        "phases": [_phase_spec(phase) for phase in phases],
    }  # fmt: skip


def _phase_spec(phase: PipelinePhase) -> dict[str, Any]:
    found = {
        "name": phase.name, "phase": phase.phase, "starts_from": phase.starts_from.name if phase.starts_from else None,
        "rollouts_from": phase.rollouts_from.name if phase.rollouts_from else None, "from_checkpoint": phase.from_checkpoint_id,
        "dataset_version": phase.dataset_version_id,
        "config": {**phase.config, "gate": gate_block(phase)}, "budget_fraction": phase.budget_fraction,
        "num_processes": phase.num_processes, "gate_metric": phase.gate_metric, "gate_threshold": phase.gate_threshold,
        "gate_direction": phase.gate_direction, "gate_action": phase.gate_action, "stop_early": phase.stop_early,
        "benchmark_data": phase.benchmark_data_id,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


@transaction.atomic
def pipeline_clone(*, pipeline: Pipeline, user: User, name: str) -> Pipeline:
    """Another pipeline with the same phases, data, budgets and gates. Raises ConfigError at `name`, DataError."""
    spec = pipeline_spec(pipeline)
    phases = list(
        pipeline.phases.select_related("dataset_version__dataset", "benchmark_data", "from_checkpoint__run").order_by("position")
    )
    for values, phase in zip(spec["phases"], phases, strict=True):
        values |= {
            "dataset_version": phase.dataset_version, "benchmark_data": phase.benchmark_data,
            "from_checkpoint": phase.from_checkpoint,
        }  # fmt: skip
    made = pipeline_create(project=pipeline.project, user=user, template=pipeline.template, **{**spec, "name": name})
    audit(user=user, project=pipeline.project, action="pipeline.clone", target=f"pipeline:{made.pk}", detail={"of": pipeline.pk})
    return made


@transaction.atomic
def phase_add(
    *, pipeline: Pipeline, user: User, position: int | None = None, rebalance: bool = False, **values: Any
) -> PipelinePhase:
    """A phase at a place of the plan, the last by default; `values` are those of a phase in `pipeline_create`.

    Without a share of the budget it gets what the others leave. With `rebalance` they give what is missing, each in proportion to
    its share; without a share it is then an equal part. Raises ConfigError, DataError, UnknownName; AlreadyLive.
    """
    locked = _locked(pipeline)
    phases = list(locked.phases.order_by("position"))
    at = len(phases) if position is None else position
    if not 0 <= at <= len(phases):
        raise ConfigError(f"A place is from 0 to {len(phases)}.", field="position")
    if any(one.name == str(values.get("name") or values.get("phase") or "").replace("_", "-") for one in phases):
        raise ConfigError("There is a phase of that name already. Give this one another.", field="name")
    left = 1.0 - sum(one.budget_fraction for one in phases)
    if rebalance and values.get("budget_fraction", LEAST_SHARE) > left - 1e-6:
        values = {"budget_fraction": round(1 / (len(phases) + 1), 6), **values}
        left = _make_room(phases, values["budget_fraction"])
    if "budget_fraction" not in values and left < LEAST_SHARE:
        raise ConfigError(
            "The other phases have the whole budget. Let them give some in proportion (rebalance), or lower one's share first.",
            field="budget_fraction",
        )
    given = {"budget_fraction": round(left, 6), **values}
    if given["budget_fraction"] > left + 1e-6:
        sentence = f"The other phases leave {left:.4g} of the budget."
        raise ConfigError(f"{sentence} Lower this share, or let them give in proportion (rebalance).", field="budget_fraction")
    _shift(locked, at, 1)
    made = phase_create(locked, at, given, {one.name: one for one in phases[:at]}, field="")
    _audit(locked, user, "pipeline.phase_add", made.name)
    return made


def _make_room(phases: list[PipelinePhase], share: float) -> float:
    """Lowers the shares of all phases in proportion until so much is left, and answers what is. Raises ConfigError."""
    given = sum(one.budget_fraction for one in phases)
    for one in phases:
        one.budget_fraction = floor(one.budget_fraction * (1 - share) / given * 1e6) / 1e6
    if least := [one.name for one in phases if one.budget_fraction < LEAST_SHARE]:
        raise ConfigError(
            f"A share of {share:.4g} leaves {', '.join(least)} less than {LEAST_SHARE:g} of the budget. Lower this share.",
            field="budget_fraction",
        )
    PipelinePhase.objects.bulk_update(phases, ["budget_fraction"])
    return 1.0 - sum(one.budget_fraction for one in phases)


@transaction.atomic
def phase_remove(*, phase: PipelinePhase, user: User) -> None:
    """Takes a phase out of the plan. Raises ConfigError while others build on it, or for the last one; AlreadyLive."""
    pipeline = _locked(phase.pipeline)
    phases = list(pipeline.phases.order_by("position"))
    if len(phases) == 1:
        raise ConfigError("A pipeline has at least one phase.", field="phase")
    after = [
        one.name for one in phases
        if phase.pk in {one.starts_from_id, one.rollouts_from_id} or reward_phase(one.config) == phase.name
    ]  # fmt: skip
    if after:
        raise ConfigError(f"{', '.join(after)} builds on {phase.name}. Change that first, or remove it too.", field="phase")
    at = phase.position
    pipeline.phases.filter(pk=phase.pk).delete()
    _shift(pipeline, at, -1)
    _audit(pipeline, user, "pipeline.phase_remove", phase.name)


@transaction.atomic
def phase_move(*, phase: PipelinePhase, user: User, position: int) -> None:
    """Puts a phase at another place. Raises ConfigError when it would then stand before what it builds on; AlreadyLive."""
    pipeline = _locked(phase.pipeline)
    phases = list(pipeline.phases.order_by("position"))
    if not 0 <= position < len(phases):
        raise ConfigError(f"A place is from 0 to {len(phases) - 1}.", field="position")
    order = [one for one in phases if one.pk != phase.pk]
    order.insert(position, next(one for one in phases if one.pk == phase.pk))
    place = {one.pk: number for number, one in enumerate(order)}
    by_name = {one.name: one.pk for one in phases}
    for one in order:
        for source in (one.starts_from_id, one.rollouts_from_id, by_name.get(reward_phase(one.config))):
            if source is not None and place[source] > place[one.pk]:
                first = next(other.name for other in order if other.pk == source)
                raise ConfigError(f"{one.name} builds on {first}, which has to stand before it.", field="position")
    pipeline.phases.update(position=F("position") + len(phases))
    for one in order:
        pipeline.phases.filter(pk=one.pk).update(position=place[one.pk])
    _audit(pipeline, user, "pipeline.phase_move", phase.name)


@transaction.atomic
def phase_source_set(*, phase: PipelinePhase, user: User, **sources: PipelinePhase | Checkpoint | None) -> None:
    """Changes what a phase starts from (`starts_from`, a phase, or `from_checkpoint`; one takes the place of the other) or learns
    from (`rollouts_from`). Raises ConfigError or CheckpointError at it; AlreadyLive."""
    pipeline = _locked(phase.pipeline)
    for key, other in (("starts_from", "from_checkpoint"), ("from_checkpoint", "starts_from")):
        if key in sources:
            sources.setdefault(other, None)
    for key, source in sources.items():
        if isinstance(source, PipelinePhase) and (source.pipeline_id != pipeline.pk or source.position >= phase.position):
            raise ConfigError("Choose an earlier phase of this pipeline.", field=key)
    given = {key: source.name if isinstance(source, PipelinePhase) else source for key, source in sources.items()}
    values = {**_phase_spec(phase), **given}
    earlier = {one.name: one for one in pipeline.phases.filter(position__lt=phase.position)}
    phase_sources(values, earlier, field="")
    if isinstance(values.get("from_checkpoint"), Checkpoint):
        phase_checkpoint(values, pipeline.project, field="")
    for key, source in sources.items():
        setattr(phase, key, source)
    phase.save(update_fields=list(sources))
    _audit(pipeline, user, "pipeline.phase_source", phase.name)


@transaction.atomic
def phase_run(*, phase: PipelinePhase, user: User) -> PhaseRun:
    """One phase alone, as the plan has it now, on the newest results of the phases that it builds on; its own is such a result too.

    Raises CheckpointError where such a phase has no result yet, and what `run_create` raises.
    """
    config: dict[str, Any] = {**phase.config, "gate": gate_block(phase)}
    config["parallel"] = {**config.get("parallel", {}), "num_processes": phase.num_processes}
    if judge := reward_phase(config):
        config = rewarded_by(config, _result_of(phase.pipeline.phases.get(name=judge), "config"))
    pipeline = phase.pipeline
    limits = {unit: getattr(pipeline, f"budget_{unit}") for unit in UNITS}
    budget = dict(config.get("budget", {}))
    budget["dollars_per_device_hour"] = budget.get("dollars_per_device_hour") or pipeline.dollars_per_device_hour
    for unit, limit in limits.items():
        if limit and not budget.get(unit):
            budget[unit] = max(round(limit * phase.budget_fraction), 1) if unit == "tokens" else limit * phase.budget_fraction
    config["budget"] = budget
    sources: dict[str, Any] = {
        key: _result_of(source, key)
        for key in ("starts_from", "rollouts_from")
        if (source := getattr(phase, key)) is not None
    }
    if phase.from_checkpoint is not None:
        sources["starts_from"] = phase.from_checkpoint
    run = run_create(
        project=pipeline.project, user=user, name=f"{phase.name} alone", phase=phase.phase, config=config,
        dataset_version=phase.dataset_version, benchmark_data=phase.benchmark_data, **sources,
    )  # fmt: skip
    PhaseRun.objects.filter(pk=run.pk).update(pipeline_phase=phase)
    run.pipeline_phase = phase
    return run


def _result_of(phase: PipelinePhase, field: str) -> Checkpoint:
    """The checkpoint of the newest run of a phase that succeeded."""
    for run in phase.runs.filter(state=RunState.SUCCEEDED).order_by("-pk")[:20]:
        if (found := final_checkpoint(run)) is not None:
            return found
    raise CheckpointError(f"{phase.name} has not succeeded in a launch yet, so there is nothing to build on.", field=field)


def _locked(pipeline: Pipeline) -> Pipeline:
    locked = Pipeline.objects.select_for_update().get(pk=pipeline.pk)
    live = locked.launches.filter(state__in=LIVE_LAUNCHES).first()
    if live is not None:
        raise AlreadyLive(live)
    return locked


def _shift(pipeline: Pipeline, at: int, by: int) -> None:
    """Moves the phases from a place on; by way of places that nobody has, for a place is unique at any moment."""
    after = list(pipeline.phases.filter(position__gte=at).order_by("position").values_list("pk", "position"))
    pipeline.phases.filter(pk__in=[pk for pk, _place in after]).update(position=F("position") + 1000)
    for pk, place in after:
        pipeline.phases.filter(pk=pk).update(position=place + by)


def _audit(pipeline: Pipeline, user: User, action: str, name: str) -> None:
    audit(user=user, project=pipeline.project, action=action, target=f"pipeline:{pipeline.pk}", detail={"phase": name})

