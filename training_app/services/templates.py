"""Pipelines from templates: known chains of phases on a dataset version, from new weights or from a model that is there."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.recipes import PhaseRecipe
from r1platform.models import Project
from training_app.models import Checkpoint, DatasetVersion, Pipeline
from training_app.pipeline_templates import PIPELINE_TEMPLATES
from training_app.services.pipelines import pipeline_create
from training_app.services.runs import check_checkpoint, check_version

PAIRS, ANSWERS, PROBLEMS = "pairs", "answers", "problems"


def learnt_from(version: DatasetVersion) -> str:
    """What a version is meant to teach: `pairs` of a better and a worse answer, good `answers`, or `problems`."""
    if version.config.get("mapping", {}).get("chosen"):
        return PAIRS
    return ANSWERS if version.config.get("source") == "chats" else PROBLEMS


def pipeline_from_template(
    *, project: Project, user: User, template: str, name: str, dataset_version: DatasetVersion | None, seed: int = 0,
    starts_from: Checkpoint | None = None,
) -> Pipeline:  # fmt: skip
    """A pipeline from `training_app/pipeline_templates`; every phase learns from `dataset_version`. One that goes on from a model
    takes the checkpoint `starts_from`, and precision and the length of answers as that model was trained with.

    Raises ConfigError, DataError, CheckpointError or UnknownName at the field.
    """
    if seed < 0 or seed >= 2**31:
        raise ConfigError("A seed is a whole number from 0 to 2147483647.", field="seed")
    made = PIPELINE_TEMPLATES.get(template, field="template")()
    recipes: list[PhaseRecipe] = made.phases(seed=seed)
    check_version(project, dataset_version, required=True)
    assert dataset_version is not None
    _check_rows(made, dataset_version)
    _check_start(project, made.title, starts_from, wanted=any(recipe.goes_on for recipe in recipes))
    phases = [_phase(recipe, dataset_version, starts_from) for recipe in recipes]
    return pipeline_create(
        project=project, user=user, name=name, phases=phases, description=made.description, template=template, seed=seed,
        budget_device_seconds=made.budget_device_seconds,
    )  # fmt: skip


def _check_rows(made: Any, version: DatasetVersion) -> None:
    """Raises DataError where pairs are wanted and there are none, or the reverse."""
    has_pairs, wants_pairs = learnt_from(version) == PAIRS, made.learns_from == PAIRS
    if wants_pairs and not has_pairs:
        why = f"“{made.title}” learns from pairs of a better and a worse answer, and {version} has none."
        raise DataError(f"{why} Choose a version of pairs.", field="dataset_version")
    if has_pairs and not wants_pairs:
        why = f"{version} has pairs of answers, from which “{made.title}” learns nothing."
        raise DataError(f"{why} Choose another version, or a template for pairs.", field="dataset_version")


def _check_start(project: Project, title: str, found: Checkpoint | None, *, wanted: bool) -> None:
    if found is None and wanted:
        raise CheckpointError(f"“{title}” goes on from a model that is there. Choose its checkpoint.", field="starts_from")
    if found is not None and not wanted:
        raise CheckpointError(f"“{title}” begins with new weights. Leave this empty.", field="starts_from")
    if found is not None:
        check_checkpoint(project, found, field="starts_from")


def _phase(recipe: PhaseRecipe, version: DatasetVersion, start: Checkpoint | None) -> dict[str, Any]:
    """A recipe as `pipeline_create` takes it."""
    start = start if recipe.goes_on else None
    config = recipe.config if start is None else _as_trained(recipe.config, start)
    return {
        "name": recipe.name, "phase": recipe.phase, "config": config, "budget_fraction": recipe.budget_fraction,
        "gate_metric": recipe.gate_metric if recipe.gate_threshold is not None else "",
        "gate_threshold": recipe.gate_threshold, "starts_from": recipe.starts_from, "rollouts_from": recipe.rollouts_from,
        "from_checkpoint": start, "dataset_version": version,
    }  # fmt: skip


def _as_trained(config: dict[str, Any], start: Checkpoint) -> dict[str, Any]:
    """The configuration with the precision of the run that made the checkpoint, its held-out measurement and its longest answer."""
    before = start.run.config
    kept = {key: before[key] for key in ("precision", "held_out") if key in before}
    longest = before.get("held_out", {}).get("max_new_tokens")
    if longest and "group_size" in config.get("phase_config", {}):
        kept["phase_config"] = {**config["phase_config"], "max_new_tokens": longest}
    return {**config, **kept}
