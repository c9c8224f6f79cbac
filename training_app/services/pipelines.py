"""Pipelines and their launches: plans are made and changed here; `training_app.scheduling` walks them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max

from model_core.config import RunConfig
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.phases import PHASES
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from r1platform.services import audit
from training_app.asking import ask_to_schedule
from training_app.models import Checkpoint, DatasetVersion, Launch, PhaseRun, Pipeline, PipelinePhase, Upload
from training_app.reward_models import PHASE as REWARD_MODEL
from training_app.reward_models import reward_phase
from training_app.services.gates import gate_block, gate_columns, parse_gated
from training_app.services.runs import (
    check_any_source,
    check_checkpoint,
    check_version,
    is_replaced,
    run_pause,
    run_resume,
    run_retry,
    run_stop,
    with_budget,
)
from training_app.states import LIVE_LAUNCHES, LIVE_RUNS, Desired, GateAction, GateVerdict, LaunchState, RunState, VersionState
from training_app.transitions import launch_refresh, launch_transition, run_transition

_PHASE_KEYS = {
    "name", "phase", "starts_from", "rollouts_from", "dataset_version", "config", "budget_fraction", "gate_metric",
    "gate_threshold", "gate_direction", "gate_action", "stop_early", "benchmark_data", "num_processes", "from_checkpoint",
}  # fmt: skip
DISTILLATION, KEEPS_CHAINS = "distillation", "rejection_sampling"
BUDGETS = {
    "budget_device_seconds": "device-seconds", "budget_wall_seconds": "seconds", "budget_dollars": "dollars",
    "budget_tokens": "tokens", "dollars_per_device_hour": "dollars",
}  # fmt: skip
"""What a pipeline's budget consists of, with the unit of each."""


@transaction.atomic
def pipeline_create(
    *,
    project: Project,
    user: User,
    name: str,
    phases: list[dict[str, Any]],
    description: str = "",
    template: str = "",
    seed: int = 0,
    **budgets: float | None,
) -> Pipeline:
    """A pipeline with its phases in order; `starts_from` and `rollouts_from` name earlier phases, `from_checkpoint` is one.

    `budgets` are those of `BUDGETS`. Raises ConfigError, DataError or UnknownName with the field, such as
    "phases.1.gate_threshold".
    """
    name = name.strip()
    if not name:
        raise ConfigError("A pipeline needs a name.", field="name")
    if not phases:
        raise ConfigError("A pipeline needs at least one phase.", field="phases")
    budgets = _checked(budgets)
    try:
        with transaction.atomic():
            pipeline = Pipeline.objects.create(
                project=project, name=name, description=description, template=template, seed=seed,
                created_by=user, **budgets,
            )  # fmt: skip
    except IntegrityError:
        raise ConfigError(f"There is a pipeline “{name}” already. Choose another name.", field="name") from None
    made: dict[str, PipelinePhase] = {}
    equal = _equal_share(phases)
    for position, values in enumerate(phases):
        with_share = {"budget_fraction": equal, **values}
        phase = phase_create(pipeline, position, with_share, made, field=f"phases.{position}.")
        made[phase.name] = phase
    _check_sum(sum(phase.budget_fraction for phase in made.values()), f"phases.{len(phases) - 1}.budget_fraction")
    audit(user=user, project=project, action="pipeline.create", target=f"pipeline:{pipeline.pk}", detail={"name": name})
    return pipeline


def phase_create(
    pipeline: Pipeline, position: int, values: dict[str, Any], earlier: dict[str, PipelinePhase], *, field: str
) -> PipelinePhase:
    """One phase of a plan; `field` is before the names of fields in errors, such as "phases.1."."""
    unknown = sorted(set(values) - _PHASE_KEYS)
    if unknown:
        raise ConfigError(
            f"There is no such setting. Known here: {', '.join(sorted(_PHASE_KEYS))}.", field=f"{field}{unknown[0]}"
        )
    name = str(values.get("name") or values.get("phase") or "").replace("_", "-")
    if not name or name in earlier:
        raise ConfigError(f"“{name}” is no name for a phase: each needs one of its own.", field=f"{field}name")
    PHASES.get(str(values.get("phase")), field=f"{field}phase")
    sources = phase_sources(values, earlier, field=field)
    start = phase_checkpoint(values, pipeline.project, field=field)
    given = {"phase": values["phase"], "seed": pipeline.seed, **(values.get("config") or {})}
    config, data = parse_gated(
        {**given, "phase": values["phase"]}, _gate_given(values), project=pipeline.project,
        benchmark_data=values.get("benchmark_data"), prefix=f"{field}config", field=f"{field}",
        judges=[one.name for one in earlier.values() if one.phase == REWARD_MODEL],
    )  # fmt: skip
    version = values.get("dataset_version")
    check_version(pipeline.project, version, required=False)
    action = _action(values.get("gate_action", GateAction.HOLD), f"{field}")
    return PipelinePhase.objects.create(
        pipeline=pipeline, position=position, name=name, phase=values["phase"], dataset_version=version,
        config=config.resolved(), budget_fraction=_fraction(values.get("budget_fraction", 1.0), field),
        num_processes=int(values.get("num_processes") or config.parallel.num_processes), gate_action=action, benchmark_data=data,
        from_checkpoint=start, **sources, **gate_columns(config),
    )  # fmt: skip


def phase_sources(values: dict[str, Any], earlier: dict[str, PipelinePhase], *, field: str) -> dict[str, PipelinePhase | None]:
    """The phases that one starts from and learns from. Raises ConfigError or CheckpointError for what its kind does not allow."""
    kind = PHASES.get(str(values["phase"]))
    sources: dict[str, PipelinePhase | None] = {}
    for key in ("starts_from", "rollouts_from"):
        wanted = values.get(key)
        if wanted and wanted not in earlier:
            raise ConfigError(
                f"“{wanted}” is no earlier phase. There are: {', '.join(earlier) or 'none'}.", field=f"{field}{key}"
            )
        sources[key] = earlier[wanted] if wanted else None
        if wanted and earlier[wanted].phase == REWARD_MODEL:
            sentence = f"{wanted} makes a reward model, which scores answers and writes none. A reward can name it."
            raise ConfigError(sentence, field=f"{field}{key}")
    given, answers = values.get("from_checkpoint"), sources["rollouts_from"]
    if given is not None and sources["starts_from"] is not None:
        raise ConfigError("It starts from an earlier phase or from a checkpoint, not from both.", field=f"{field}from_checkpoint")
    start = sources["starts_from"] or given
    if values["phase"] == DISTILLATION and answers is not None and answers.phase != KEEPS_CHAINS:
        sentence = f"{kind.title} learns the chains that rejection sampling keeps; {answers.name} keeps none. Choose one that does."
        raise ConfigError(sentence, field=f"{field}rollouts_from")
    for need, key, does, found in (
        ("start_from", "starts_from", "starts from", start), ("rollouts_from", "rollouts_from", "learns from", answers),
    ):  # fmt: skip
        if kind.needs[need] == "required" and found is None:
            raise ConfigError(f"{kind.title} {does} the checkpoint of an earlier phase; name it.", field=f"{field}{key}")
    check_any_source(str(values["phase"]), start, answers, field=f"{field}starts_from")
    return sources


def phase_checkpoint(values: dict[str, Any], project: Project, *, field: str) -> Checkpoint | None:
    """The checkpoint of an earlier run that a phase starts from. Raises CheckpointError for one that it cannot take."""
    found: Checkpoint | None = values.get("from_checkpoint")
    if found is None:
        return None
    if PHASES.get(str(values["phase"])).needs["start_from"] == "no":
        raise CheckpointError("This phase takes no checkpoint here; leave it empty.", field=f"{field}from_checkpoint")
    check_checkpoint(project, found, field=f"{field}from_checkpoint")
    return found


def _gate_given(values: dict[str, Any]) -> dict[str, Any]:
    """The gate that a phase's own keys say; what they do not say is as its configuration has it."""
    keys = {"gate_metric": "metric", "gate_threshold": "threshold", "gate_direction": "direction", "stop_early": "stop_early"}
    return {key: values[name] for name, key in keys.items() if name in values}


def _checked(budgets: dict[str, float | None]) -> dict[str, float | None]:
    """Raises ConfigError at the limit that is none, or at the price that is missing."""
    for name, value in budgets.items():
        if name not in BUDGETS:
            raise ConfigError(f"A budget consists of {', '.join(BUDGETS)}.", field=name)
        if value is not None and value <= 0:
            raise ConfigError(f"A budget is above 0 {BUDGETS[name]}; leave it empty for none.", field=name)
    if budgets.get("budget_dollars") and not budgets.get("dollars_per_device_hour"):
        raise ConfigError("A budget in dollars needs the price of a device; say what an hour of it costs.",
                          field="dollars_per_device_hour")  # fmt: skip
    return budgets


@transaction.atomic
def pipeline_budget_set(*, pipeline: Pipeline, user: User, **budgets: float | None) -> Pipeline:
    """Changes limits of `BUDGETS`; what is not given stays, launches that exist keep theirs. Raises ConfigError."""
    locked = Pipeline.objects.select_for_update().get(pk=pipeline.pk)
    values = _checked({**{name: getattr(locked, name) for name in BUDGETS}, **budgets})
    for name, value in values.items():
        setattr(locked, name, value)
    locked.save(update_fields=list(values))
    audit(user=user, project=locked.project, action="pipeline.budget", target=f"pipeline:{locked.pk}", detail=budgets)
    return locked


def _equal_share(phases: list[dict[str, Any]]) -> float:
    """The share of a phase that names none: those share equally what the others leave."""
    given = [values["budget_fraction"] for values in phases if "budget_fraction" in values]
    left = 1.0 - sum(value for value in given if isinstance(value, int | float))
    return left / max(len(phases) - len(given), 1)


def _fraction(value: Any, field: str) -> float:
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(
            f"A share of the budget is above 0 and at most 1, but it is {value!r}.", field=f"{field}budget_fraction"
        )
    return float(value)


def _check_sum(shares: float, field: str) -> None:
    if shares > 1 + 1e-6:
        raise ConfigError(
            f"The shares of the budget of all phases are {shares:.4g} together; at most 1 can be given away. Lower this one.",
            field=field,
        )


def _action(value: str, field: str) -> str:
    if value not in GateAction.values:
        raise ConfigError(f"What follows is one of {', '.join(GateAction.values)}.", field=f"{field}gate_action")
    return value


@transaction.atomic
def pipeline_phase_update(
    *,
    phase: PipelinePhase,
    user: User,
    config: dict[str, Any],
    dataset_version: DatasetVersion | None,
    budget_fraction: float,
    num_processes: int,
    gate_metric: str,
    gate_threshold: float | None,
    gate_action: str,
    gate_direction: str = "at_least",
    stop_early: int | None = None,
    benchmark_data: Upload | None = None,
) -> PipelinePhase:
    """Changes a phase of the plan; launches that exist keep what they were launched with. Raises ConfigError, DataError.

    Without `stop_early` it stays as it was, or 0 when the gate is taken away.
    """
    locked = PipelinePhase.objects.select_for_update(of=("self",)).select_related("pipeline__project").get(pk=phase.pk)
    kept = {key: locked.config[key] for key in ("model", "tokenizer", "budget", "seed", "gate") if key in locked.config}
    values = {**kept, **config, "phase": locked.phase}
    values["parallel"] = {**values.get("parallel", {}), "num_processes": num_processes}
    check_version(locked.pipeline.project, dataset_version, required=False)
    gate = {"metric": gate_metric, "threshold": gate_threshold, "direction": gate_direction,
            "stop_early": stop_early if gate_metric or stop_early else 0}  # fmt: skip
    before = locked.pipeline.phases.filter(position__lt=locked.position, phase=REWARD_MODEL)
    parsed, locked.benchmark_data = parse_gated(
        values, gate, project=locked.pipeline.project, benchmark_data=benchmark_data, prefix="", field="",
        judges=list(before.values_list("name", flat=True)),
    )  # fmt: skip
    locked.gate_action = _action(gate_action, "")
    for name, value in gate_columns(parsed).items():
        setattr(locked, name, value)
    locked.config = parsed.resolved()
    locked.dataset_version, locked.num_processes = dataset_version, num_processes
    if budget_fraction > locked.budget_fraction:
        others = locked.pipeline.phases.exclude(pk=locked.pk).values_list("budget_fraction", flat=True)
        _check_sum(sum(others) + budget_fraction, "budget_fraction")
    locked.budget_fraction = _fraction(budget_fraction, "")
    locked.save(
        update_fields=[
            "config", "dataset_version", "num_processes", "budget_fraction", "gate_metric", "gate_threshold", "gate_direction",
            "gate_action", "benchmark_data",
        ]
    )
    audit(
        user=user, project=locked.pipeline.project, action="pipeline.phase_update", target=f"pipeline:{locked.pipeline_id}",
        detail={"phase": locked.name},
    )  # fmt: skip
    return locked


@transaction.atomic
def pipeline_launch(*, pipeline: Pipeline, user: User) -> Launch:
    """Launches it: one run a phase, the first ones queued. One launch of a pipeline is live at a time.

    Raises IllegalTransition when one is live, DataError when a phase has no data that is ready or on its way, CheckpointError
    when what it goes on from is gone from disk.
    """
    locked = Pipeline.objects.select_for_update().get(pk=pipeline.pk)
    live = locked.launches.filter(state__in=LIVE_LAUNCHES).first()
    if live is not None:
        raise AlreadyLive(live)
    phases = list(locked.phases.select_related("dataset_version__dataset", "from_checkpoint__run").order_by("position"))
    for phase in phases:
        _check_data(phase)
        if phase.from_checkpoint is not None:
            check_checkpoint(locked.project, phase.from_checkpoint, field="from_checkpoint")
    number = (locked.launches.aggregate(number=Max("number"))["number"] or 0) + 1
    launch = Launch.objects.create(pipeline=locked, number=number, created_by=user)
    for phase in phases:
        _run_of(phase, locked, launch, user)
    launch.refresh_from_db()
    audit(
        user=user,
        project=locked.project,
        action="pipeline.launch",
        target=f"launch:{launch.pk}",
        detail={"number": number},
    )
    ask_to_schedule()
    return launch


class AlreadyLive(IllegalTransition):
    """One launch of a pipeline is live at a time; stop or finish that one first."""

    def __init__(self, launch: Launch) -> None:
        super().__init__("Launch", launch.pk, launch.state, LaunchState.RUNNING)
        state = launch.get_state_display().lower()
        self.args = (f"Launch {launch.number} of this pipeline is {state}; stop it before you launch it again.",)


class NothingToResume(IllegalTransition):
    """It runs already: somebody else was first."""

    def __init__(self, launch: Launch) -> None:
        super().__init__("Launch", launch.pk, launch.state, LaunchState.RUNNING)
        self.args = (f"Launch {launch.number} of this pipeline runs already; there is nothing to resume.",)


def _check_data(phase: PipelinePhase) -> None:
    if not PHASES.get(phase.phase).needs["dataset"]:
        return
    version = phase.dataset_version
    if version is None:
        raise DataError(f"{phase.name} has no dataset version. Choose one in its settings.", field="dataset_version")
    if version.state in {VersionState.FAILED, VersionState.STOPPED}:
        raise DataError(
            f"{phase.name} learns from {version}, which is {version.get_state_display().lower()}. Choose another version.",
            field="dataset_version",
        )


def _run_of(phase: PipelinePhase, pipeline: Pipeline, launch: Launch, user: User) -> PhaseRun:
    limits = {unit: getattr(pipeline, f"budget_{unit}") for unit in ("device_seconds", "wall_seconds", "dollars", "tokens")}
    shares = {unit: limit * phase.budget_fraction if limit else None for unit, limit in limits.items()}
    parallel = {**phase.config.get("parallel", {}), "num_processes": phase.num_processes}
    values = {**phase.config, "parallel": parallel, "gate": gate_block(phase)}
    config = with_budget(RunConfig.parse(values), price=pipeline.dollars_per_device_hour, **shares)
    sources = (phase.starts_from, phase.rollouts_from)
    first = next((p.name for p in sources if p is not None), reward_phase(phase.config))
    waits = bool(first)
    return PhaseRun.objects.create(
        project_id=pipeline.project_id, name=phase.name, phase=phase.phase, launch=launch, pipeline_phase=phase,
        position=phase.position, state=RunState.WAITING if waits else RunState.QUEUED, config=config,
        waiting_reason=f"Waits for {first}." if waits else "", dataset_version=phase.dataset_version,
        starts_from=phase.from_checkpoint, num_processes=phase.num_processes,
        budget_device_seconds=config["budget"]["device_seconds"],
        gate_metric=phase.gate_metric, gate_threshold=phase.gate_threshold, gate_direction=phase.gate_direction,
        gate_action=phase.gate_action, benchmark_data=phase.benchmark_data,
        gate_verdict=GateVerdict.PENDING if phase.gate_metric else GateVerdict.NONE, created_by=user,
    )  # fmt: skip


@transaction.atomic
def launch_pause(*, launch: Launch, user: User) -> None:
    """The phase that runs writes a checkpoint and waits; no other starts. Raises IllegalTransition."""
    locked = _locked(launch)
    reason = f"Paused by {user.username}."
    if not launch_transition(launch=locked, to=LaunchState.PAUSED, reason=reason, user=user):
        raise IllegalTransition("Launch", launch.pk, locked.state, LaunchState.PAUSED)
    for run in locked.runs.filter(state__in=[*LIVE_RUNS, RunState.QUEUED]):
        run_pause(run=run, user=user)
    _audit(locked, user, "launch.pause")


@transaction.atomic
def launch_resume(*, launch: Launch, user: User) -> None:
    """Goes on where it was paused, stopped, failed or held. Raises IllegalTransition, AlreadyLive.

    What happened while it was paused counts: a phase that was held meanwhile holds it now.
    """
    locked = _locked(launch)
    before = locked.state
    other = locked.pipeline.launches.filter(state__in=LIVE_LAUNCHES).exclude(pk=locked.pk).first()
    if other is not None:
        raise AlreadyLive(other)
    if not launch_transition(launch=locked, to=LaunchState.RUNNING, reason=f"Resumed by {user.username}.", user=user):
        raise NothingToResume(locked)
    again = {RunState.STOPPED, RunState.FAILED, RunState.LOST}
    if before != LaunchState.PAUSED:
        again.add(RunState.GATE_FAILED)
    for run in locked.runs.select_related("pipeline_phase"):
        if run.state == RunState.PAUSED or (run.state in LIVE_RUNS and run.desired == Desired.PAUSE):
            run_resume(run=run, user=user)
        elif run.state in again and not is_replaced(run):
            run_retry(run=run, user=user)
    launch_refresh(launch_id=locked.pk)
    _audit(locked, user, "launch.resume")
    ask_to_schedule()


@transaction.atomic
def launch_stop(*, launch: Launch, user: User) -> None:
    """Ends the launch: the phase that runs writes a checkpoint first. Raises IllegalTransition."""
    locked = _locked(launch)
    reason = f"Stopped by {user.username}."
    if not launch_transition(launch=locked, to=LaunchState.STOPPED, reason=reason, user=user):
        raise IllegalTransition("Launch", launch.pk, locked.state, LaunchState.STOPPED)
    for run in locked.runs.all():
        if run.state in LIVE_RUNS or run.state in {RunState.QUEUED, RunState.PAUSED}:
            run_stop(run=run, user=user)
        elif run.state == RunState.WAITING:
            run_transition(run=run, to=RunState.STOPPED, reason=reason, user=user, fields={"desired": Desired.STOP})
    _audit(locked, user, "launch.stop")


def _locked(launch: Launch) -> Launch:
    """Locks its runs, then the launch: the order in which everything that moves a run takes them."""
    list(PhaseRun.objects.select_for_update().filter(launch=launch.pk).order_by("pk").values_list("pk"))
    return Launch.objects.select_for_update(of=("self",)).select_related("pipeline__project").get(pk=launch.pk)


def _audit(launch: Launch, user: User, action: str) -> None:
    audit(user=user, project=launch.pipeline.project, action=action, target=f"launch:{launch.pk}", detail={})
