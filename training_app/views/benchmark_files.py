"""Benchmark files: what the contamination filter can compare with, and a project's own beside the operator's."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from model_core.errors import ModelCoreError
from r1platform.access import for_user, require_role, signed_in
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from r1platform.templatetags.r1_parts import may_edit
from training_app import selectors, services
from training_app.forms import BenchmarkForm
from training_app.models import Upload


@require_http_methods(["GET", "HEAD", "POST"])
@project_page
def benchmark_file_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Every file at hand; an editor can add one."""
    is_sent = request.method == "POST"
    form = BenchmarkForm(request.POST, request.FILES) if is_sent else BenchmarkForm()
    if is_sent:
        require_role(request.user, project, Role.EDITOR)
        if form.is_valid() and (made := _receive(request, form, project)):
            messages.success(request, f"“{made.benchmark}” is at hand for the contamination filter.")
            return redirect(f"{reverse('benchmark-file-list')}?upload={made.pk}")
    context = {
        "form": form, "files": selectors.benchmark_files(project).values(), "project": project,
        "may_edit": may_edit(request.user, project), "max_bytes": settings.R1_MAX_UPLOAD_BYTES,
    }  # fmt: skip
    return render(request, "training_app/datasets/benchmarks.html", context, status=422 if form.is_bound else 200)


def _receive(request: HttpRequest, form: BenchmarkForm, project: Project) -> Upload | None:
    file, name = form.cleaned_data["file"], form.cleaned_data["name"]
    try:
        return services.upload_create(
            project=project, user=signed_in(request), file_name=file.name, file=file, benchmark=name
        )
    except ModelCoreError as error:
        form.add_error("name" if error.field == "benchmark" else "file", error.message)
        return None


@require_POST
@login_required
def benchmark_file_remove(request: HttpRequest, upload_id: int) -> HttpResponse:
    """Takes a project's file away from the filter; versions that were compared with it keep its hash."""
    upload = get_object_or_404(for_user(Upload.objects.select_related("project"), request.user), pk=upload_id)
    require_role(request.user, upload.project, Role.EDITOR)
    name = upload.benchmark
    services.upload_benchmark_set(upload=upload, user=signed_in(request), name="")
    messages.success(request, f"“{name}” is not compared with any more.")
    return redirect("benchmark-file-list")
