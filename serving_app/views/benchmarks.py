"""Benchmarks of a deployment: all of them laid over each other, the form of a new one, one with its levels, the export."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import ModelCoreError
from model_core.serving.load import PERCENTS
from r1platform.access import require_role, signed_in
from r1platform.form_words import WordedForm
from r1platform.lib.ids import ids_of
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from r1platform.templatetags.r1_parts import may_edit
from serving_app import selectors, services
from serving_app.benchmark_plan import BenchmarkPlan
from serving_app.benchmarking import answering
from serving_app.forms import as_json
from serving_app.gateway.routing import read_routes
from serving_app.models import BenchmarkLevel, Deployment, DeploymentBenchmark, DeploymentRevision
from serving_app.selectors.benchmarks import COLUMNS, MAX_COMPARED
from serving_app.states import MOVING_BENCHMARKS, RevisionState
from serving_app.views.deployments import deployment_of
from training_app.schema_forms import SchemaForm
from training_app.search_fields import SearchedField

PER_PAGE = 50
SENTENCES = {
    "stop": "The benchmark is stopped. Levels that were done are kept.",
    "delete": "The benchmark is deleted, with its figures.",
}


class PlanForm(SchemaForm):
    """How much is asked; `config()` is the validated JSON."""

    def __init__(self, *args: Any, values: dict[str, Any] | None = None) -> None:
        super().__init__(*args, model=BenchmarkPlan, values=values, prefix="plan")


class BenchmarkForm(WordedForm):
    """What is asked, and of which revision."""

    revision = forms.ModelChoiceField(
        queryset=DeploymentRevision.objects.none(), empty_label=None, help_text="One that answers now."
    )
    dataset_version = SearchedField(
        "versions", required=False, empty_label="None: prompts of random numbers", label="Prompts of",
        help_text="Held-out prompts of a dataset are asked in turn, so that a prefix cache may know them; made ones never repeat.",
    )  # fmt: skip

    def __init__(self, *args: Any, deployment: Deployment, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ready = [one.pk for one in deployment.revisions.all() if answering(one).exists()]
        revision, version = self.fields["revision"], self.fields["dataset_version"]
        assert isinstance(revision, forms.ModelChoiceField) and isinstance(version, SearchedField)
        revision.queryset = deployment.revisions.filter(pk__in=ready).order_by("-number")
        version.offer(deployment.project)


@require_safe
def benchmark_list(request: HttpRequest, deployment_id: int) -> HttpResponse:
    """Every benchmark of the deployment, and those that are chosen over each other; by default the newest of each revision."""
    deployment = deployment_of(request, deployment_id)
    found = selectors.benchmark_list(user=request.user, deployment=deployment)
    compared = selectors.benchmarks_compared(found, _chosen(request))
    context = {
        "deployment": deployment,
        "project": deployment.project,
        "page": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "chosen": {one.pk for one in compared},
        "compared": [_drawn(one, one.levels.all()) for one in compared],
        "query": "&".join(f"b={one.pk}" for one in compared),
        "max_compared": MAX_COMPARED,
        "may_edit": may_edit(request.user, deployment.project),
        "moves": any(one.state in MOVING_BENCHMARKS for one in found[:PER_PAGE]),
    }
    return render(request, "serving_app/benchmarks/list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def benchmark_new(request: HttpRequest, deployment_id: int) -> HttpResponse:
    """The form; a POST queues the benchmark and goes to its page."""
    deployment = deployment_of(request, deployment_id)
    require_role(request.user, deployment.project, Role.EDITOR)
    form = BenchmarkForm(request.POST or None, deployment=deployment, initial=_initial(request, deployment))
    plan = PlanForm(request.POST or None, values=_fitting(deployment))
    if request.method == "POST" and all([form.is_valid(), plan.is_valid()]) and (made := _create(request, form, plan)):
        messages.success(request, "The benchmark is queued. It starts when no other one runs on the node.")
        return redirect("benchmark-detail", deployment.pk, made.pk)
    context = {
        "deployment": deployment, "project": deployment.project, "form": form, "plan_form": plan,
        "can_start": form.fields["revision"].queryset.exists(),  # type: ignore[attr-defined]
    }  # fmt: skip
    return render(request, "serving_app/benchmarks/new.html", context, status=422 if form.is_bound else 200)


@require_safe
def benchmark_detail(request: HttpRequest, deployment_id: int, benchmark_id: int) -> HttpResponse:
    """One benchmark: how far it is, its levels, what it was measured on."""
    benchmark = benchmark_of(request, deployment_id, benchmark_id)
    levels = list(benchmark.levels.all())
    plan = BenchmarkPlan.parse(benchmark.plan)
    context = {
        "benchmark": benchmark,
        "deployment": benchmark.deployment,
        "project": benchmark.deployment.project,
        "levels": [{"level": level, "spreads": _milliseconds(level)} for level in levels],
        "drawn": _drawn(benchmark, levels),
        "num_levels": len(plan.concurrency),
        "plan": plan,
        "config": as_json(benchmark.revision.engine_config),
        "is_moving": benchmark.state in MOVING_BENCHMARKS,
        "fraction": benchmark.num_done / benchmark.num_planned if benchmark.num_planned else None,
        "replicas": benchmark.hardware.get("replicas", []),
        "nodes": benchmark.hardware.get("nodes", {}),
        "transitions": benchmark.transitions.select_related("user").order_by("-id"),
        "may_edit": may_edit(request.user, benchmark.deployment.project),
    }
    return render(request, "serving_app/benchmarks/detail.html", context)


@require_POST
def benchmark_act(request: HttpRequest, deployment_id: int, benchmark_id: int, verb: str) -> HttpResponse:
    """Stops or deletes it."""
    benchmark = benchmark_of(request, deployment_id, benchmark_id)
    if verb not in SENTENCES:
        raise Http404(f"A benchmark cannot “{verb}”.")
    require_role(request.user, benchmark.deployment.project, Role.EDITOR)
    act = services.benchmark_stop if verb == "stop" else services.benchmark_delete
    try:
        act(benchmark=benchmark, user=signed_in(request))
    except IllegalTransition:
        benchmark.refresh_from_db(fields=["state"])
        messages.error(request, f"That is not possible now: the benchmark is {benchmark.get_state_display().lower()}.")
    else:
        messages.success(request, SENTENCES[verb])
        if verb == "delete":
            return redirect("benchmark-list", deployment_id)
    return redirect("benchmark-detail", deployment_id, benchmark_id)


@require_safe
def benchmark_export(request: HttpRequest, deployment_id: int) -> HttpResponseBase:
    """Levels as CSV: of the benchmarks that are chosen, else of all."""
    deployment = deployment_of(request, deployment_id)
    found = selectors.benchmark_list(user=request.user, deployment=deployment)
    if chosen := _chosen(request):
        found = found.filter(pk__in=chosen)
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="benchmarks-{deployment.name}.csv"'
    writer = csv.DictWriter(response, fieldnames=COLUMNS)
    writer.writeheader()
    writer.writerows(selectors.benchmark_rows(found))
    return response


def benchmark_of(request: HttpRequest, deployment_id: int, benchmark_id: int) -> DeploymentBenchmark:
    """The benchmark if the user may see it, else 404."""
    found = selectors.benchmark_list(user=request.user)
    return get_object_or_404(found, pk=benchmark_id, deployment=deployment_id)


def _chosen(request: HttpRequest) -> list[int]:
    return ids_of(request.GET.getlist("b"))


def _drawn(benchmark: DeploymentBenchmark, levels: Iterable[BenchmarkLevel]) -> dict[str, Any]:
    """A benchmark as the charts read it."""
    name = f"Revision {benchmark.revision.number}, benchmark {benchmark.pk}"
    return {"id": benchmark.pk, "name": name, "levels": [selectors.level_row(level) for level in levels]}


def _milliseconds(level: BenchmarkLevel) -> list[tuple[str, list[float]]]:
    """Label and percentiles of each of its times."""
    spreads = (("First token", level.ttft_seconds), ("Between tokens", level.itl_seconds), ("Whole", level.e2e_seconds))
    return [(label, [1000 * spread[f"p{percent}"] for percent in PERCENTS] if spread else []) for label, spread in spreads]


def _initial(request: HttpRequest, deployment: Deployment) -> dict[str, Any]:
    """The revision that the address names, else the current one."""
    named = request.GET.get("revision", "")
    found = deployment.revisions.filter(number=int(named)) if named.isdecimal() and len(named) < 9 else None
    found = deployment.revisions.filter(state=RevisionState.CURRENT) if found is None else found
    return {"revision": found.values_list("pk", flat=True).first()}


def _fitting(deployment: Deployment) -> dict[str, Any]:
    """Lengths that a small model's context has room for."""
    route = read_routes().get(deployment.name)
    if route is None or route.context is None:
        return {}
    defaults = BenchmarkPlan()
    room = max(1, route.context // 4)
    return {"prompt_tokens": min(defaults.prompt_tokens, room), "answer_tokens": min(defaults.answer_tokens, room)}


def _create(request: HttpRequest, form: BenchmarkForm, plan: PlanForm) -> DeploymentBenchmark | None:
    try:
        return services.benchmark_create(user=signed_in(request), plan=plan.config(), **form.cleaned_data)
    except ModelCoreError as error:
        if error.field.startswith("plan."):
            plan.place(type(error)(error.message, field=error.field.removeprefix("plan.")))
        else:
            form.add_error(error.field if error.field in form.fields else None, error.message)
    return None
