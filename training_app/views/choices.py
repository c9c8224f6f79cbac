"""The options of a searched select: `search_fields` draws it, htmx asks here for what fits the text."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.html import format_html_join
from django.views.decorators.http import require_safe

from r1platform.access import for_user
from r1platform.models import Project
from training_app.search_fields import KINDS, Wanted, pairs


@require_safe
@login_required
def choice_list(request: HttpRequest, project_id: int, kind: str) -> HttpResponse:
    """The options that fit the text of the field `name`; `empty` is the word of the option that chooses nothing."""
    project = get_object_or_404(for_user(Project.objects.all(), request.user, path=""), pk=project_id)
    if kind not in KINDS:
        raise Http404(f"There is nothing to choose that is called {kind}.")
    name = request.GET.get("name", "")
    wanted = Wanted.of(request.GET.get(name, ""), request.GET.get(f"{name}_search", ""))
    options, chosen, _more = pairs(kind, KINDS[kind].rows(project), wanted, request.GET.get("empty") or None)
    drawn = ((key, " selected" if key == chosen else "", label) for key, label in options)
    return HttpResponse(format_html_join("", '<option value="{}"{}>{}</option>', drawn))
