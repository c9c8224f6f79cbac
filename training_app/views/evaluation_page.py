"""One evaluation: how far it is, its result, every problem with what was said, and what it was asked under."""

from __future__ import annotations

import shlex
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ModelCoreError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.identity import extractor_of
from model_core.thinking import split
from r1platform.access import for_user, require_role, signed_in
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from r1platform.templatetags.r1_parts import may_edit
from training_app import selectors, services
from training_app.models import Evaluation
from training_app.selectors.evaluations import VERDICTS
from training_app.states import MOVING_EVALUATIONS, EvaluationState

PER_PAGE = 50
SENTENCES = {
    "stop": "The evaluation is stopped. What was answered is kept; it can go on.",
    "resume": "It goes on with what was not answered yet.",
    "delete": "The evaluation is deleted, with everything that was said.",
}


@require_safe
@login_required
def evaluation_detail(request: HttpRequest, evaluation_id: int) -> HttpResponse:
    """Its page; its parts stay fresh while it runs."""
    evaluation = evaluation_of(request, evaluation_id)
    other = _other(request, evaluation)
    verdict, text = request.GET.get("verdict", ""), request.GET.get("q", "").strip()
    found = selectors.evaluation_problems(evaluation, verdict=verdict, text=text, other=other).defer("samples")
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    cls = BENCHMARKS.get(evaluation.benchmark)
    context = {
        "evaluation": evaluation,
        "title": selectors.benchmark_title(evaluation),
        "changed": selectors.changed_settings(evaluation),
        "result": evaluation.result,
        "references": [one for one in cls.references if evaluation.data_name == evaluation.benchmark],
        "extractor": (evaluation.result or {}).get("extractor") or extractor_of(cls),
        "is_moving": evaluation.state in MOVING_EVALUATIONS,
        "may_resume": evaluation.state in {EvaluationState.STOPPED, EvaluationState.FAILED, EvaluationState.LOST},
        "fraction": evaluation.num_done / evaluation.num_problems if evaluation.num_problems else None,
        "page": page,
        "verdicts": [(key, label) for key, (label, _lookups) in VERDICTS.items()],
        "verdict": verdict,
        "verdict_words": ("most right", "most wrong") if evaluation.config.get("num_samples", 1) > 1 else ("right", "wrong"),
        "q": text,
        "other": other,
        "others": _others(evaluation),
        "compared": selectors.evaluation_compare(evaluation, other) if other else None,
        "command": command_words(evaluation),
        "transitions": evaluation.transitions.select_related("user").order_by("-id"),
        "project": evaluation.project,
        "may_edit": may_edit(request.user, evaluation.project),
    }
    return render(request, "training_app/evaluations/detail.html", context)


def evaluation_of(request: HttpRequest, evaluation_id: int) -> Evaluation:
    """The evaluation, if the user may see it."""
    return get_object_or_404(selectors.evaluation_list(user=request.user).select_related("upload"), pk=evaluation_id)


def _others(evaluation: Evaluation) -> Any:
    """Results on the same rows, which can be laid beside it problem by problem."""
    return _same_rows(evaluation).exclude(pk=evaluation.pk).order_by("-id")[:50]


def _other(request: HttpRequest, evaluation: Evaluation) -> Evaluation | None:
    given = request.GET.get("with", "")
    if not (given.isascii() and given.isdigit() and len(given) < 18):
        return None
    return for_user(_same_rows(evaluation), request.user).filter(pk=int(given)).first()


def _same_rows(evaluation: Evaluation) -> QuerySet[Evaluation]:
    found = Evaluation.objects.filter(project=evaluation.project_id, data_sha256=evaluation.data_sha256)
    return found.filter(state=EvaluationState.SUCCEEDED).exclude(data_sha256="").select_related("checkpoint__run")


def command_words(evaluation: Evaluation) -> str:
    """The same by hand, with the library alone; paths of the platform are left for the reader to fill in."""
    argv = ["python", "-m", "model_core", "evaluate", "--benchmark", evaluation.benchmark, "--data"]
    argv += [f"{evaluation.data_name}.jsonl"]
    if evaluation.checkpoint is not None:
        run, attempt, step = evaluation.checkpoint.run_id, evaluation.checkpoint.attempt.number, evaluation.checkpoint.step
        argv += ["--checkpoint", f"runs/{run}/{attempt}/checkpoints/step_{step:08d}"]
    else:
        argv += ["--endpoint", evaluation.endpoint, *(["--model", evaluation.endpoint_model] if evaluation.endpoint_model else [])]
    cls = BENCHMARKS.get(evaluation.benchmark)
    pinned = cls.Config().resolved()
    for name in ("num_samples", "temperature", "top_p", "max_new_tokens", "prompt"):
        if evaluation.config.get(name) != pinned.get(name):
            argv += [f"--{name.replace('_', '-')}", str(evaluation.config[name])]
    argv += ["--limit", str(evaluation.limit)] if evaluation.limit else []
    return shlex.join([*argv, "--seed", str(evaluation.seed), "--json", "out.json"])


@require_POST
@login_required
def evaluation_act(request: HttpRequest, evaluation_id: int, verb: str) -> HttpResponse:
    """Stops, resumes or deletes it."""
    evaluation = evaluation_of(request, evaluation_id)
    if verb not in SENTENCES:
        raise Http404(f"An evaluation cannot “{verb}”.")
    require_role(request.user, evaluation.project, Role.EDITOR)
    user = signed_in(request)
    try:
        if verb == "stop":
            services.evaluation_stop(evaluation=evaluation, user=user)
        elif verb == "resume":
            services.evaluation_resume(evaluation=evaluation, user=user, endpoint_key=request.POST.get("endpoint_key", "")[:500])
        else:
            services.evaluation_delete(evaluation=evaluation, user=user)
    except IllegalTransition:
        evaluation.refresh_from_db(fields=["state"])
        messages.error(request, f"That is not possible now: the evaluation is {evaluation.get_state_display().lower()}.")
    except ModelCoreError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, SENTENCES[verb])
        if verb == "delete":
            return redirect("evaluation-list")
    return redirect("evaluation-detail", evaluation_id)


@require_safe
@login_required
def evaluation_problem(request: HttpRequest, evaluation_id: int, row: int) -> HttpResponse:
    """One problem: what each sample said, what was found in it, and why it was scored so; another model beside it."""
    evaluation = evaluation_of(request, evaluation_id)
    other = _other(request, evaluation)
    found = [_shown(one, row) for one in (evaluation, other) if one is not None]
    if not found or found[0]["problem"] is None:
        raise Http404("There is no such problem.")
    rows = evaluation.problems.order_by("row")
    verdict = request.GET.get("verdict", "")
    if verdict in VERDICTS:
        rows = rows.filter(**VERDICTS[verdict][1])
    context = {
        "evaluation": evaluation, "title": selectors.benchmark_title(evaluation), "row": row, "shown": found, "other": other,
        "problem": found[0]["problem"], "project": evaluation.project,
        "previous": rows.filter(row__lt=row).order_by("-row").values_list("row", flat=True).first(),
        "next": rows.filter(row__gt=row).values_list("row", flat=True).first(),
    }  # fmt: skip
    return render(request, "training_app/evaluations/problem.html", context)


def _shown(evaluation: Evaluation, row: int) -> dict[str, Any]:
    """The problem of one evaluation, thinking parted from what was said after it."""
    try:
        problem = selectors.evaluation_problem(evaluation, row)
    except ModelCoreError as error:
        return {"evaluation": evaluation, "problem": {"samples": []}, "error": error.message}
    for sample in problem["samples"] if problem else ():
        sample["thought"], sample["said"] = split(sample["completion"] or "")
    return {"evaluation": evaluation, "problem": problem, "error": ""}
