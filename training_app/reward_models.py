"""Reward models of a project: which checkpoints they are, and where a reward may name one.

In a plan a reward may name an earlier phase instead, `phase:reward-model`: the checkpoint is that of the same launch, and is put in
its place when that phase has succeeded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from model_core.config import RunConfig
from model_core.errors import CheckpointError, ConfigError
from model_core.rundir import RunDir
from r1platform.lib.storage import run_dir
from r1platform.models import Project
from training_app.models import Checkpoint

PHASE, REWARD = "reward_model", "preference"
OF_PHASE = "phase:"
"""Before the name of an earlier phase of the plan."""


def refuse_reward_model(checkpoint: Checkpoint, *, field: str) -> None:
    """Raises CheckpointError for a checkpoint that scores texts and writes none."""
    if checkpoint.run.phase == PHASE:
        raise CheckpointError(
            f"{checkpoint} is a reward model: it scores answers and writes none. The reward “{REWARD}” can name it.", field=field
        )


def reward_phase(config: Mapping[str, Any]) -> str:
    """The earlier phase of the plan whose reward model a configuration names; empty when it names none."""
    named = str(config.get("reward", {}).get("settings", {}).get(REWARD, {}).get("checkpoint", ""))
    return named.removeprefix(OF_PHASE) if named.startswith(OF_PHASE) else ""


def rewarded_by(config: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """A run's configuration with the directory of this reward model in the place of the phase."""
    reward = config["reward"]
    settings = {**reward["settings"], REWARD: {**reward["settings"][REWARD], "checkpoint": _directory(checkpoint)}}
    return {**config, "reward": {**reward, "settings": settings}}


def _directory(checkpoint: Checkpoint) -> str:
    return str(RunDir(run_dir(checkpoint.run_id, checkpoint.attempt.number)).checkpoint(checkpoint.step))


def reward_models(project: Project, *, earlier: Collection[str] = (), named: str = "") -> tuple[list[tuple[str, str]], str]:
    """What the reward `preference` can name, as (value, label), the phases `earlier` in the plan first; and which of them `named`
    is, a value or a directory. Empty when it is none of them."""
    found = _there(project)
    choices = [(f"{OF_PHASE}{name}", f"The one that {name} makes") for name in earlier]
    choices += [(str(one.pk), f"Run {one.run_id} · {one.run.name} · step {one.step}") for one in found]
    values = {_directory(one): str(one.pk) for one in found} | {value: value for value, _label in choices}
    return choices, values.get(named, "")


def _there(project: Project) -> list[Checkpoint]:
    """The project's reward models that are on disk, newest first."""
    found = Checkpoint.objects.filter(run__project=project, run__phase=PHASE, removed_at=None)
    return list(found.select_related("run", "attempt").order_by("-pk"))


def with_reward_model(config: RunConfig, project: Project, *, prefix: str = "", earlier: Collection[str] = ()) -> RunConfig:
    """The configuration whose reward `preference` names the directory of one of the project's reward models, or one of the
    phases `earlier` in the plan, which make one.

    People name the checkpoint by its number; a directory is only taken when it is that of such a checkpoint, so that no run
    reads from elsewhere. Raises ConfigError at the setting.
    """
    if REWARD not in config.reward.weights:
        return config
    named = str(config.reward.settings.get(REWARD, {}).get("checkpoint", ""))
    if named in {f"{OF_PHASE}{name}" for name in earlier}:
        return config
    found = _there(project)
    known = {one.pk: _directory(one) for one in found}
    directory = known.get(int(named)) if named.isdecimal() else named if named in known.values() else None
    if directory is None:
        phases = [f"{OF_PHASE}{name}" for name in earlier]
        newest = ", ".join([*phases, *(f"{one.pk} ({one})" for one in found[:5])])
        there = newest or "none yet; train one in the phase reward_model"
        raise ConfigError(
            f"“{named}” is no reward model of this project. Name the number of its checkpoint. There are: {there}.",
            field=f"{prefix}.reward.settings.{REWARD}.checkpoint".lstrip("."),
        )
    settings: dict[str, Any] = {**config.reward.settings, REWARD: {**config.reward.settings[REWARD], "checkpoint": directory}}
    return config.model_copy(update={"reward": config.reward.model_copy(update={"settings": settings})})
