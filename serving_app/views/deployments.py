"""Deployments: the list, one deployment with its replicas and revisions, its logs, and its buttons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import current_project, require_role, role_in, signed_in
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import DeviceLease, Role
from serving_app import selectors, services
from serving_app.forms import as_json
from serving_app.models import Deployment, DeploymentRevision, Replica
from serving_app.placement import holder_of
from serving_app.services.deployments import MAX_REPLICAS
from serving_app.shifting import WHOLE, ShiftPlan, is_ready, measured, next_share
from serving_app.states import REVISION_ON_ITS_WAY, DeploymentState, ReplicaState, RevisionState
from serving_app.views.snippets import chat_snippets

PER_PAGE = 50
EARLIER = frozenset({RevisionState.RETIRED, RevisionState.ROLLED_BACK})
ENDED = frozenset({ReplicaState.STOPPED, ReplicaState.FAILED, ReplicaState.LOST})
METRICS = (
    ("running", "Running", "requests"),
    ("queued", "Queued", "requests"),
    ("ttft_seconds", "First token", "s"),
    ("inter_token_seconds", "Between tokens", "s"),
    ("tokens_per_second", "Output", "tok/s"),
    ("kv_use", "KV cache used", "%"),
    ("cache_hit_rate", "Prefix cache hits", "%"),
)
EXAMPLE = "What is 17 + 25?"


@require_safe
def deployment_list(request: HttpRequest) -> HttpResponse:
    """The table; without a deployment it says how to make the first."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    found = _with_revisions(selectors.deployment_list(user=request.user, project=project))
    if text := request.GET.get("q", "").strip():
        found = found.filter(name__icontains=text)
    if state := request.GET.get("state"):
        found = found.filter(state=state)
    page = Paginator(found.order_by("-id"), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [_row(d) for d in page],
        "moves": any(d.state != DeploymentState.STOPPED for d in page),
        "values": request.GET,
        "states": DeploymentState.choices,
        "filtered": any(request.GET.get(name) for name in ("q", "state")),
        "project": project,
        "may_edit": role_in(request.user, project) in {Role.EDITOR, Role.OWNER},
        "has_deployable": selectors.has_deployable(user=request.user, project=project),
    }
    if "X-Part" in request.headers:
        context["part"] = "serving_app/deployments/_table.html"
        return render(request, "training_app/run/_part.html", context)
    return render(request, "serving_app/deployments/list.html", context)


@require_safe
def deployment_detail(request: HttpRequest, deployment_id: int) -> HttpResponse:
    """State and why, replicas, metrics, revisions, history, snippets, logs."""
    deployment = deployment_of(request, deployment_id)
    context = _live_context(request, deployment)
    if "X-Part" in request.headers:
        return render(request, "serving_app/deployments/_live.html", context)
    base_url = request.build_absolute_uri("/").rstrip("/")
    context["snippets"] = chat_snippets(
        base_url=base_url,
        model=deployment.name,
        messages=[{"role": "user", "content": EXAMPLE}],
        parameters={"max_tokens": 256},
    )
    return render(request, "serving_app/deployments/detail.html", context)


@require_safe
def replica_log(request: HttpRequest, deployment_id: int, replica_id: int) -> JsonResponse:
    """Output of an engine from `offset` on; without one its newest part."""
    deployment = deployment_of(request, deployment_id)
    replica = get_object_or_404(Replica, pk=replica_id, revision__deployment=deployment)
    offset = request.GET.get("offset", "")
    return JsonResponse(
        selectors.replica_log(replica, offset=int(offset) if offset.isdecimal() and len(offset) < 16 else None)
    )


@require_POST
def deployment_act(request: HttpRequest, deployment_id: int, verb: str) -> HttpResponse:
    """Stops, starts, scales, lets sleep, shifts, rolls back or deletes; a new revision has a page of its own (`deployment_new`)."""
    deployment = deployment_of(request, deployment_id)
    if verb not in _VERBS:
        raise Http404(f"A deployment cannot “{verb}”.")
    require_role(request.user, deployment.project, Role.EDITOR)
    try:
        sentence = _VERBS[verb](request, deployment)
    except IllegalTransition:
        deployment.refresh_from_db()
        messages.error(
            request, f"That is not possible now: “{deployment.name}” is {deployment.get_state_display().lower()}."
        )
    except ModelCoreError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, sentence)
        if verb == "delete":
            return redirect("deployment-list")
    return redirect("deployment-detail", deployment_id=deployment.pk)


def _stop(request: HttpRequest, deployment: Deployment) -> str:
    services.deployment_stop(deployment=deployment, user=signed_in(request))
    return f"“{deployment.name}” stops: running answers end or are cut after the grace time."


def _start(request: HttpRequest, deployment: Deployment) -> str:
    services.deployment_start(deployment=deployment, user=signed_in(request))
    return f"“{deployment.name}” starts. It is ready after it has generated a first token."


def _scale(request: HttpRequest, deployment: Deployment) -> str:
    if not (wanted := _number(request, "replicas")):
        raise ModelCoreError("Nothing was changed. Write how many replicas are wanted; to have none, stop it.")
    services.deployment_scale(deployment=deployment, user=signed_in(request), replicas=wanted)
    return f"“{deployment.name}” goes to {wanted} replica{'' if wanted == 1 else 's'}."


def _idle(request: HttpRequest, deployment: Deployment) -> str:
    given = request.POST.get("minutes", "").strip()
    if not (given.isdecimal() and len(given) < 7):
        raise ModelCoreError("Nothing was changed. Write after how many minutes it is to sleep; 0 is never.")
    services.deployment_idle(deployment=deployment, user=signed_in(request), idle_seconds=60 * int(given))
    if not int(given):
        return f"“{deployment.name}” never sleeps."
    return f"“{deployment.name}” sleeps after {int(given)} min without a request, and starts at the next."


def _delete(request: HttpRequest, deployment: Deployment) -> str:
    if request.POST.get("name", "").strip() != deployment.name:
        raise ModelCoreError(f"Nothing was deleted. Write “{deployment.name}” to confirm.", field="name")
    services.deployment_delete(deployment=deployment, user=signed_in(request))
    return f"“{deployment.name}” is deleted. What it served, its usage and conversations are kept."


def _shift(request: HttpRequest, deployment: Deployment) -> str:
    number, share = _number(request, "revision"), _number(request, "share")
    reason = request.POST.get("reason", "")
    services.revision_shift(deployment=deployment, user=signed_in(request), number=number, share=share, reason=reason)
    if share == WHOLE:
        return f"Revision {number} has taken over. The replicas before it end when their answers have ended."
    return f"Revision {number} gets {share} % of the requests."


def _rollback(request: HttpRequest, deployment: Deployment) -> str:
    number = _number(request, "revision") if request.POST.get("revision") else None
    reason = request.POST.get("reason", "")
    services.revision_rollback(deployment=deployment, user=signed_in(request), number=number, reason=reason)
    if number is None:
        return "It is rolled back: the revision before it has all requests again."
    return f"Revision {number} is started again and takes over as soon as it is ready."


def _number(request: HttpRequest, name: str) -> int:
    given = request.POST.get(name, "").strip()
    return int(given) if given.isdecimal() and len(given) < 9 else 0


_VERBS: dict[str, Callable[[HttpRequest, Deployment], str]] = {
    "stop": _stop,
    "start": _start,
    "scale": _scale,
    "idle": _idle,
    "shift": _shift,
    "rollback": _rollback,
    "delete": _delete,
}


def deployment_of(request: HttpRequest, deployment_id: int) -> Deployment:
    """The deployment if the user may see it and it is not deleted, else 404."""
    return get_object_or_404(selectors.deployment_list(user=request.user), pk=deployment_id)


def _with_revisions(deployments: QuerySet[Deployment]) -> QuerySet[Deployment]:
    revisions = DeploymentRevision.objects.select_related("checkpoint__run", "imported_model").order_by("-number")
    replicas = Replica.objects.exclude(state__in=ENDED)
    return deployments.prefetch_related(
        Prefetch(
            "revisions",
            revisions.prefetch_related(Prefetch("replicas", replicas, to_attr="living")),
            to_attr="newest_first",
        )
    )


def _row(deployment: Any) -> dict[str, Any]:
    revisions: list[Any] = deployment.newest_first
    current = next((one for one in revisions if one.state == RevisionState.CURRENT), None)
    living = [replica for revision in revisions for replica in revision.living]
    speeds = [r.metrics["tokens_per_second"] for r in living if r.metrics.get("tokens_per_second") is not None]
    return {
        "deployment": deployment,
        "revision": current,
        "coming": next((one for one in revisions if one.state in REVISION_ON_ITS_WAY), None),
        "ready": sum(_is_ready(replica, current) for replica in living),
        "speed": sum(speeds) if speeds else None,
        "running": sum(r.metrics.get("running") or 0 for r in living),
    }


def _is_ready(replica: Replica, revision: DeploymentRevision | None) -> bool:
    """Whether it counts for what is wanted of the current revision."""
    return revision is not None and replica.revision_id == revision.pk and replica.state == ReplicaState.READY


def _live_context(request: HttpRequest, deployment: Deployment) -> dict[str, Any]:
    found = selectors.deployment_detail(deployment=deployment)
    revisions = found["revisions"]
    living = [_replica(row) for row in found["replicas"] if not row["finished"]]
    ended = [row["replica"] for row in found["replicas"] if row["finished"]][:10]
    return {
        "deployment": deployment,
        "revisions": [{"revision": r, "config": as_json(r.engine_config), "earlier": r.state in EARLIER} for r in revisions],
        "revision": found["current"],
        "takeover": _takeover(found, [row["replica"] for row in living]),
        "living": living,
        "ended": ended,
        "logged": [*(row["replica"] for row in living), *ended][:10],
        "history": selectors.deployment_history(deployment),
        "num_ready": sum(_is_ready(row["replica"], found["current"]) for row in living),
        "holds_devices": _holds_devices([row["replica"] for row in living]),
        "may_edit": role_in(request.user, deployment.project) in {Role.EDITOR, Role.OWNER},
        "may_stop": deployment.state not in {DeploymentState.STOPPED, DeploymentState.STOPPING},
        "max_replicas": MAX_REPLICAS,
        "may_start": deployment.state in {DeploymentState.STOPPED, DeploymentState.FAILED, DeploymentState.ASLEEP},
        "may_chat": deployment.state in {DeploymentState.READY, DeploymentState.DEGRADED, DeploymentState.ASLEEP},
        "idle_minutes": deployment.idle_seconds // 60,
        "former": selectors.former_of(found["current"], project=deployment.project) if found["current"] is not None else None,
    }


def _takeover(found: dict[str, Any], replicas: list[Replica]) -> dict[str, Any] | None:
    """The revision that takes over, what it has answered at this step, and the shares it can be given by hand."""
    revision = found["coming"]
    if revision is None:
        return None
    plan = ShiftPlan.parse(revision.plan)
    return {
        "revision": revision,
        "plan": plan,
        "seen": measured(revision) if revision.share else None,
        "following": next_share(plan, revision.share),
        "is_ready": is_ready(found["deployment"], revision, replicas),
        "shares": [share for share in (*plan.steps, WHOLE) if share != revision.share],
    }


def _holds_devices(replicas: list[Replica]) -> bool:
    """Whether an accelerator is leased to any of them; on a node without one there is none to hold."""
    holders = [holder_of(replica) for replica in replicas]
    return DeviceLease.objects.filter(holder__in=holders, released_at=None).exists()


def _replica(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "metrics": [_metric(row["metrics"].get(key), label, unit) for key, label, unit in METRICS]}


def _metric(value: Any, label: str, unit: str) -> dict[str, str]:
    if not isinstance(value, int | float):
        return {"label": label, "value": "–", "unit": "not reported"}
    if unit == "%":
        return {"label": label, "value": f"{value * 100:.0f}", "unit": "%"}
    if unit == "s":
        return {"label": label, "value": f"{value * 1000:.1f}", "unit": "ms"}
    return {"label": label, "value": f"{value:,.0f}".replace(",", "\u202f"), "unit": unit}
