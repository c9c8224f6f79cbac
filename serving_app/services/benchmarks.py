"""What people do with benchmarks of deployments; `serving_app.benchmarking` runs them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from model_core.errors import ConfigError, DataError
from r1platform.lib.transitions import IllegalTransition
from serving_app.asking import ask_to_benchmark
from serving_app.benchmark_plan import BenchmarkPlan
from serving_app.benchmarking import answering, kept_words
from serving_app.models import DeploymentBenchmark, DeploymentRevision
from serving_app.services.deployments import deployment_audit
from serving_app.states import MOVING_BENCHMARKS, BenchmarkState
from serving_app.transitions import benchmark_transition
from training_app.models import DatasetVersion
from training_app.states import VersionState

MAX_WAITING = 10
"""Benchmarks of one deployment that may wait."""
FULL_ANSWERS = frozenset({"sglang"})
"""Engines that can write on past the end of an answer."""


@transaction.atomic
def benchmark_create(
    *, revision: DeploymentRevision, user: User, plan: dict[str, Any] | None = None, dataset_version: DatasetVersion | None = None
) -> DeploymentBenchmark:
    """A benchmark of a revision that answers, queued. With a version its held-out prompts are asked, else made ones.

    Raises ConfigError or DataError at the field that is wrong.
    """
    deployment = revision.deployment
    parsed = BenchmarkPlan.parse(plan or {}, prefix="plan")
    if not answering(revision).exists():
        raise ConfigError(
            f"{revision} of “{deployment.name}” has no replica that answers: the deployment is "
            f"{deployment.get_state_display().lower()}. Start it, or wait until it is ready.", field="revision",
        )  # fmt: skip
    if parsed.ignore_end and revision.engine not in FULL_ANSWERS:
        raise ConfigError(f"The engine “{revision.engine}” ends an answer where the model ends it; only SGLang can go on.",
                          field="plan.ignore_end")  # fmt: skip
    if dataset_version is not None:
        _check_version(deployment.project_id, dataset_version)
    if deployment.benchmarks.filter(state=BenchmarkState.QUEUED).count() >= MAX_WAITING:
        raise ConfigError(f"{MAX_WAITING} benchmarks of “{deployment.name}” wait already. Let some of them end, or stop them.")
    made = DeploymentBenchmark.objects.create(
        deployment=deployment, revision=revision, plan=parsed.resolved(), dataset_version=dataset_version, created_by=user,
        num_planned=parsed.num_planned,
    )  # fmt: skip
    made.refresh_from_db()
    deployment_audit(deployment, user, "deployment.benchmark", benchmark=made.pk, revision=revision.number, plan=made.plan)
    ask_to_benchmark()
    return made


@transaction.atomic
def benchmark_stop(*, benchmark: DeploymentBenchmark, user: User) -> None:
    """Ends it; levels that were done are kept. Raises IllegalTransition when it has ended."""
    reason = f"Stopped by {user.get_username()}. {kept_words(benchmark)}"
    if not benchmark_transition(benchmark=benchmark, to=BenchmarkState.STOPPED, reason=reason, user=user):
        raise IllegalTransition("Benchmark", benchmark.pk, BenchmarkState.STOPPED, BenchmarkState.STOPPED)
    deployment_audit(benchmark.deployment, user, "deployment.benchmark_stop", benchmark=benchmark.pk)
    ask_to_benchmark()


@transaction.atomic
def benchmark_delete(*, benchmark: DeploymentBenchmark, user: User) -> None:
    """Deletes one that has ended, with its figures. Raises IllegalTransition while it runs or waits."""
    locked = DeploymentBenchmark.objects.select_for_update(of=("self",)).get(pk=benchmark.pk)
    if locked.state in MOVING_BENCHMARKS:
        raise IllegalTransition("Benchmark", locked.pk, locked.state, "deleted")
    deployment_audit(benchmark.deployment, user, "deployment.benchmark_delete", benchmark=locked.pk)
    locked.delete()


def _check_version(project_id: int, version: DatasetVersion) -> None:
    if version.dataset.project_id != project_id:
        raise DataError("There is no such version in this project.", field="dataset_version")
    if version.state != VersionState.READY:
        raise DataError(f"{version} is {version.get_state_display().lower()}, not ready.", field="dataset_version")
    if not version.num_held_out:
        raise DataError(f"{version} has no held-out rows. Choose another version, or none.", field="dataset_version")
