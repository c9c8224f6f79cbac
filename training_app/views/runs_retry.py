"""Trying a run again with other settings: its configuration in a form, and a new run that stands in for it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from r1platform.access import require_role, signed_in
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from training_app import services
from training_app.gates import condition, gate_of
from training_app.models import PhaseRun
from training_app.views.runs_new import RunConfigForm
from training_app.views.runs_page import run_of


class RetryForm(RunConfigForm):
    """Everything but what decides whether the run passes; the model too where it comes from a checkpoint."""

    def __init__(self, *args: Any, run: PhaseRun, **kwargs: Any) -> None:
        super().__init__(*args, project=run.project, phase=run.phase, values=run.config, **kwargs)
        hidden = ["gate", "benchmark", *(["model", "tokenizer"] if run.starts_from_id else [])]
        self.without |= frozenset(hidden)
        for name in [name for name in self.fields if name.split(".")[0] in hidden]:
            del self.fields[name]
            del self.readers[name]
        self.found_groups = [group for group in self.found_groups if group.path.split(".")[0] not in hidden]


@require_http_methods(["GET", "HEAD", "POST"])
def run_retry(request: HttpRequest, run_id: int) -> HttpResponse:
    """The form; a POST queues the new run and goes to its page."""
    run = run_of(request, run_id)
    require_role(request.user, run.project, Role.EDITOR)
    form = RetryForm(request.POST or None, run=run)
    if request.method == "POST" and form.is_valid():
        try:
            made = services.run_retry_changed(run=run, user=signed_in(request), config=form.config())
        except IllegalTransition as error:
            messages.error(request, str(error))
            return redirect("run-detail", run_id=run.pk)
        except ModelCoreError as error:
            form.place(error)
        else:
            messages.success(request, f"Run {made.pk} is queued in the place of run {run.pk}, with the settings that you changed.")
            return redirect("run-detail", run_id=made.pk)
    gate = gate_of(run)
    context = {
        "run": run, "config": form, "project": run.project, "kind_title": PHASES.get(run.phase).title,
        "gate": condition(gate) if gate else "", "replaced": services.replacement_of(run),
    }  # fmt: skip
    return render(request, "training_app/run/retry.html", context, status=422 if form.is_bound else 200)
