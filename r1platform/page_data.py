"""What the overview, the rail and the nodes page show, read for one user and one project; only the first start writes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction

from model_core.config import PrepareConfig
from r1platform.access import for_user
from r1platform.models import DeviceKind, DeviceLease, Node, Project
from r1platform.selectors import device_counts
from r1platform.selectors import node_list as nodes_of_platform
from serving_app.models import Deployment, Replica
from serving_app.states import DeploymentState
from training_app import selectors, services
from training_app.evaluating import evaluation_of
from training_app.models import Dataset, DatasetKind, DatasetVersion, Evaluation, Launch, PhaseRun, RunAttempt
from training_app.states import RunState, VersionState
from training_app.views.run_words import LIVE, progress_fraction, progress_words
from training_app.views.standing import pipeline_row, pipelines_of

Reader = User | AnonymousUser
NUM_FAILURES = 5
FIRST_NAME = "Tiny R1"
FIRST_TEMPLATE = "article"
GIB = 1 << 30
NEEDS = (
    ("memory_bytes", "Memory", 16 * GIB, 32 * GIB, "16 GB", "32 GB"),
    ("disk_bytes", "Disk", 50 * GIB, 100 * GIB, "50 GB", "100 GB SSD"),
    ("gpu_memory_bytes", "GPU", 12 * GIB, 16 * GIB, "RTX 3060, 12 GB", "RTX 4080, 16 GB"),
)
"""What the article asks for: key, word, minimum, recommended, and both as it says them."""
TOLERANCE = 0.93
"""A "16 GB" machine reports a little less to its programs."""


def overview(*, user: Reader, project: Project) -> dict[str, Any]:
    """Everything on the overview."""
    pipelines = pipeline_rows(user=user, project=project)
    deployments = deployment_rows(user=user, project=project)
    nodes = [node_card(node) for node in nodes_of_platform()]
    spend = selectors.spend_today(project=project, user=user)
    return {
        "project": project,
        "running": running_now(user=user, project=project, limit=8),
        "pipelines": pipelines,
        "deployments": deployments,
        "nodes": nodes,
        "holders": holders(user=user, leases=[lease for node in nodes for lease in node["leases"]]),
        "failures": failures(user=user, project=project),
        "waiting": waiting_runs(user=user, project=project),
        "devices": device_counts(),
        "num_ready": sum(1 for item in deployments if item.state == DeploymentState.READY),
        "spend": spend,
        "first_start": not pipelines,
    }


def running_now(*, user: Reader, project: Project, limit: int = 4) -> list[dict[str, Any]]:
    """Runs that hold a device or are about to, newest first, with progress in words."""
    runs = _runs(user, project).filter(state__in=LIVE).order_by("-id")[:limit]
    return [_progress(run) for run in runs]


def waiting_runs(*, user: Reader, project: Project) -> list[dict[str, Any]]:
    """Queued runs with why they wait; those behind another phase of their pipeline are not in line yet."""
    return [_progress(run) for run in _runs(user, project).filter(state=RunState.QUEUED).order_by("id")[:10]]


def _runs(user: Reader, project: Project) -> Any:
    return for_user(PhaseRun.objects.filter(project=project), user).select_related("launch__pipeline")


def _progress(run: PhaseRun) -> dict[str, Any]:
    return {
        "run": run,
        "words": progress_words(run),
        "fraction": progress_fraction(run),
        "label": f"Progress of run {run.pk}",
        "tone": "running",
    }


def pipeline_rows(*, user: Reader, project: Project, limit: int = 6) -> list[dict[str, Any]]:
    """Pipelines with their newest launch and where each of its phases stands."""
    return [pipeline_row(pipeline) for pipeline in pipelines_of(user=user, project=project)[:limit]]


def deployment_rows(*, user: Reader, project: Project) -> list[Deployment]:
    """Deployments that are not deleted, newest first."""
    found = for_user(Deployment.objects.filter(project=project, deleted_at=None), user)
    return list(found.order_by("-id")[:6])


def failures(*, user: Reader, project: Project) -> list[dict[str, Any]]:
    """What failed last, of any kind, newest first: run, dataset version, deployment."""
    bad_runs = _runs(user, project).filter(state__in=[RunState.FAILED, RunState.LOST, RunState.GATE_FAILED])
    versions = for_user(DatasetVersion.objects.filter(dataset__project=project), user, path="dataset__project")
    bad_versions = versions.filter(state=VersionState.FAILED).select_related("dataset")
    bad_deployments = for_user(Deployment.objects.filter(project=project, deleted_at=None), user)
    bad_deployments = bad_deployments.filter(state=DeploymentState.FAILED)
    found = [
        *(
            {"kind": "run", "thing": run, "at": run.finished_at or run.created_at}
            for run in bad_runs.order_by("-id")[:NUM_FAILURES]
        ),
        *(
            {"kind": "version", "thing": v, "at": v.finished_at or v.created_at}
            for v in bad_versions.order_by("-id")[:NUM_FAILURES]
        ),
        *(
            {"kind": "deployment", "thing": d, "at": d.created_at}
            for d in bad_deployments.order_by("-id")[:NUM_FAILURES]
        ),
    ]
    return sorted(found, key=lambda item: item["at"], reverse=True)[:NUM_FAILURES]


def node_card(node: Node) -> dict[str, Any]:
    """A node with its devices, live leases and the check of its hardware against the article."""
    devices = list(node.devices.all())
    readings = {gpu["index"]: gpu for gpu in node.hardware.get("gpus", [])}
    for device in devices:
        device.reading = readings.get(device.index) if device.kind == DeviceKind.CUDA else None  # type: ignore[attr-defined]
    return {
        "node": node,
        "state": "draining" if node.draining else ("online" if getattr(node, "is_up", False) else "silent"),
        "devices": devices,
        "leases": [lease for device in devices for lease in getattr(device, "live_leases", [])],
        "hardware": node.hardware,
        "checks": [_check(node, devices, *need) for need in NEEDS],
    }


def _check(
    node: Node, devices: list[Any], key: str, label: str, low: int, high: int, minimum: str, wanted: str
) -> dict[str, Any]:
    found = hardware_amount(node.hardware, devices, key)
    if found is None:
        verdict, words = "queued", "none found" if key.startswith("gpu") else "not reported"
    elif found >= high * TOLERANCE:
        verdict, words = "succeeded", "as recommended"
    elif found >= low * TOLERANCE:
        verdict, words = "degraded", "enough"
    else:
        verdict, words = "failed", "too little"
    return {"label": label, "found": found, "minimum": minimum, "recommended": wanted, "tone": verdict, "words": words}


def hardware_amount(hardware: dict[str, Any], devices: list[Any], key: str) -> int | None:
    """Bytes of memory, disk or the largest GPU, as the node reported them."""
    if key == "gpu_memory_bytes":
        sizes = [device.memory_bytes for device in devices if device.kind == "cuda"]
        return max(sizes) if sizes else None
    value = hardware.get(key)
    return int(value) if isinstance(value, int | float) else None


def holders(*, user: Reader, leases: list[DeviceLease]) -> dict[str, dict[str, Any]]:
    """Who holds each lease, by `holder`; what the user may not see is only "another project"."""
    found: dict[str, dict[str, Any]] = {lease.holder: {"words": "another project", "kind": "", "pk": None} for lease in leases}
    attempts = [int(name.removeprefix("attempt:")) for name in found if name.startswith("attempt:")]
    evaluations = {number: name for name in found if (number := evaluation_of(name)) is not None}
    replicas = [int(name.removeprefix("replica:")) for name in found if name.startswith("replica:")]
    if attempts:
        seen = for_user(RunAttempt.objects.filter(pk__in=attempts), user, path="run__project").select_related("run")
        for attempt in seen:
            found[f"attempt:{attempt.pk}"] = {
                "words": f"run {attempt.run_id}, {attempt.run.name}",
                "kind": "run",
                "pk": attempt.run_id,
            }
    if evaluations:
        for evaluation in for_user(Evaluation.objects.filter(pk__in=evaluations), user):
            words = f"evaluation {evaluation.pk}, {evaluation.data_name}"
            found[evaluations[evaluation.pk]] = {"words": words, "kind": "evaluation", "pk": evaluation.pk}
    if replicas:
        kept = Replica.objects.filter(pk__in=replicas).select_related("revision__deployment")
        for replica in for_user(kept, user, path="revision__deployment__project"):
            deployment = replica.revision.deployment
            found[f"replica:{replica.pk}"] = {
                "words": f"deployment {deployment.name}",
                "kind": "deployment",
                "pk": deployment.pk,
            }
    return found


def first_pipeline_launch(*, project: Project, user: User) -> Launch:
    """The tiny R1 pipeline on generated sums, made and launched: its runs wait for the data, which is on its way.

    Raises ModelCoreError when a part is refused; then nothing is made.
    """
    number = Dataset.objects.filter(project=project, name__startswith=FIRST_NAME).count()
    name = FIRST_NAME if not number else f"{FIRST_NAME} {number + 1}"
    with transaction.atomic():
        dataset = services.dataset_create(
            project=project,
            user=user,
            name=name,
            kind=DatasetKind.SELF,
            description="Generated from a seed, with answers.",
        )
        config = PrepareConfig.parse({"source": "generated", "source_config": {"task": "sums"}}).resolved()
        version = services.version_prepare(dataset=dataset, user=user, config=config)
        pipeline = services.pipeline_from_template(
            project=project, user=user, template=FIRST_TEMPLATE, name=name, dataset_version=version, seed=0
        )
        return services.pipeline_launch(pipeline=pipeline, user=user)
