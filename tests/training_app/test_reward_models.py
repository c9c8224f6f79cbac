"""A reward names a reward model of its project by number, and nothing else is read; a reward model writes no text."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from model_core.errors import CheckpointError, ConfigError
from r1platform.lib.storage import run_dir
from r1platform.models import Node, Project
from serving_app.selectors import checkpoints_deployable
from serving_app.services import deployment_create
from tests.training_app.rows import make_version
from training_app import services
from training_app.models import Checkpoint, DatasetVersion, PhaseRun, RunAttempt

pytestmark = pytest.mark.django_db


@pytest.fixture
def version(project: Project) -> DatasetVersion:
    return make_version(project)


def checkpoint_of(project: Project, node: Node, phase: str) -> Checkpoint:
    run = PhaseRun.objects.create(project=project, name=phase, phase=phase, config={})
    return Checkpoint.objects.create(run=run, attempt=RunAttempt.objects.create(run=run, number=1, node=node), step=8)


def rewarded_by(checkpoint: str) -> dict[str, Any]:
    return {"reward": {"weights": {"solution_accuracy": 1, "preference": 0.5}, "settings": {"preference": {"checkpoint": checkpoint}}}}


def created(project: Project, user: User, version: DatasetVersion, start: Checkpoint, named: str) -> PhaseRun:
    return services.run_create(
        project=project, user=user, name="again", phase="reinforcement", config=rewarded_by(named), dataset_version=version,
        starts_from=start,
    )  # fmt: skip


def test_a_number_becomes_the_directory_and_a_directory_stays(project: Project, node: Node, alice: User, version: DatasetVersion) -> None:
    judge, start = checkpoint_of(project, node, "reward_model"), checkpoint_of(project, node, "cold_start")
    directory = str(run_dir(judge.run_id, 1) / "checkpoints" / "step_00000008")
    for named in (str(judge.pk), directory):
        assert created(project, alice, version, start, named).config["reward"]["settings"]["preference"]["checkpoint"] == directory


def test_what_is_no_reward_model_of_the_project_is_refused_at_the_setting(
    project: Project, node: Node, alice: User, bob: User, version: DatasetVersion
) -> None:
    other = Project.objects.create(name="other", slug="other", created_by=bob)
    start, strange = checkpoint_of(project, node, "cold_start"), checkpoint_of(other, node, "reward_model")
    for named in (str(start.pk), str(strange.pk), str(run_dir(strange.run_id, 1) / "checkpoints" / "step_00000008"), "/etc", "999999"):
        with pytest.raises(ConfigError, match="no reward model of this project") as caught:
            created(project, alice, version, start, named)
        assert caught.value.field == "reward.settings.preference.checkpoint"


def test_a_pipelines_phase_names_one_too(project: Project, alice: User) -> None:
    phases = [{"phase": "cold_start", "config": {}}, {"phase": "reinforcement", "starts_from": "cold-start", "config": rewarded_by("7")}]
    with pytest.raises(ConfigError, match="There are: none yet") as caught:
        services.pipeline_create(project=project, user=alice, name="with preference", phases=phases)
    assert caught.value.field.endswith("config.reward.settings.preference.checkpoint")


def test_it_is_neither_started_from_nor_deployed(project: Project, node: Node, alice: User, version: DatasetVersion) -> None:
    judge = checkpoint_of(project, node, "reward_model")
    with pytest.raises(CheckpointError, match="is a reward model") as caught:
        services.run_create(project=project, user=alice, name="on", phase="cold_start", config={}, dataset_version=version, starts_from=judge)
    assert caught.value.field == "starts_from"
    with pytest.raises(CheckpointError, match="is a reward model") as caught:
        deployment_create(project=project, user=alice, name="judge", checkpoint=judge, engine="builtin")
    assert caught.value.field == "checkpoint" and judge not in checkpoints_deployable(user=alice, project=project)


def test_a_phase_that_needs_a_teacher_has_one_when_the_pipeline_is_made(project: Project, alice: User) -> None:
    phases = [{"phase": "cold_start"}, {"phase": "on_policy_distillation", "starts_from": "cold-start"}]
    with pytest.raises(ConfigError, match="learns from the checkpoint of an earlier phase") as caught:
        services.pipeline_create(project=project, user=alice, name="taught", phases=phases)
    assert caught.value.field == "phases.1.rollouts_from"
