"""Pages that span the apps: overview, the rail's list, nodes, the palette, the style guide.

What they show is gathered in `r1platform.page_data`; settings and keys are in `settings_views`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform import operations, page_data, services
from r1platform.access import current_project, require_role, signed_in
from r1platform.models import Node, Role
from r1platform.palette import palette_items
from r1platform.selectors import node_list as nodes_of_platform
from r1platform.templatetags.r1 import TONES
from r1platform.templatetags.r1_parts import may_edit


@login_required
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """What runs now, where each pipeline stands, who holds which device, what failed, what was spent today."""
    project = current_project(request)
    if project is None:
        return render(request, "r1platform/no_project.html")
    return render(
        request,
        "r1platform/overview.html",
        {**page_data.overview(user=request.user, project=project), "may_edit": may_edit(request.user, project)},
    )


@login_required
@require_POST
def first_pipeline(request: HttpRequest) -> HttpResponse:
    """Makes generated sums and the tiny R1 pipeline on them, launches it and goes to the launch."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    require_role(request.user, project, Role.EDITOR)
    try:
        launch = page_data.first_pipeline_launch(project=project, user=signed_in(request))
    except ModelCoreError as error:
        messages.error(request, error.message)
        return redirect("overview")
    messages.success(request, "Launched. Its data is prepared within seconds; then the first phase starts.")
    return redirect("launch-detail", launch.pk)


@login_required
@require_safe
def rail_now(request: HttpRequest) -> HttpResponse:
    """The rail's list of what runs now, as a fragment."""
    project = current_project(request)
    running = page_data.running_now(user=request.user, project=project) if project else []
    return render(request, "partials/_rail_now.html", {"running": running})


@login_required
@require_safe
def palette(request: HttpRequest) -> JsonResponse:
    """Pages, things and actions that fit `q`."""
    found = palette_items(user=request.user, project=current_project(request), text=request.GET.get("q", "").strip())
    return JsonResponse({"items": found})


@login_required
@require_safe
def node_list(request: HttpRequest) -> HttpResponse:
    """Hardware found, against what the article asks for; devices with who holds them; what waits for one; what is stuck."""
    nodes = [page_data.node_card(node) for node in nodes_of_platform()]
    holders = page_data.holders(user=request.user, leases=[lease for node in nodes for lease in node["leases"]])
    context = {
        "nodes": nodes,
        "holders": holders,
        "queue": operations.queue_list(user=request.user),
        "stuck": operations.stuck_list(user=request.user),
        "may_drain": request.user.is_staff,
    }
    return render(request, "r1platform/nodes.html", context)


@login_required
@require_POST
def node_drain(request: HttpRequest, node_id: int) -> HttpResponse:
    """Takes a node out of scheduling, or back in; what runs there ends by itself. For staff: nodes are everybody's."""
    if not request.user.is_staff:
        raise PermissionDenied("Only an administrator can drain a node: other projects use it too.")
    node = get_object_or_404(Node, pk=node_id)
    draining = request.POST.get("draining") == "1"
    services.node_drain(node=node, draining=draining, by=signed_in(request))
    done = "gets no new work; what runs there goes on to its end" if draining else "takes work again"
    messages.success(request, f"{node.name} {done}.")
    return redirect("node-list")


class _SampleForm(forms.Form):
    name = forms.CharField(help_text="How you will find it again.")
    learning_rate = forms.FloatField(help_text="Step size of the matrices.")
    phase = forms.ChoiceField(choices=[("cold_start", "Cold start"), ("reinforcement", "Reinforcement")])
    gradient_checkpointing = forms.BooleanField(required=False, help_text="Less memory, about a third more time.")
    notes = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}))


@login_required
@require_safe
def styleguide(request: HttpRequest) -> HttpResponse:
    """Every part that pages are made of, with invented content."""
    form = _SampleForm({"name": "tiny R1", "learning_rate": "3", "phase": "cold_start"})
    form.add_error("learning_rate", "3.0 is above the largest that is allowed, 1.0. Try 0.003.")
    context: dict[str, Any] = {
        "form": form,
        "earlier": timezone.now() - timedelta(minutes=3, seconds=12),
        "states": [(state, state.replace("_", " ").capitalize()) for state in TONES],
        "rows": [(41, "reinforcement", "running", 0.961, 184), (40, "cold-start", "succeeded", 0.5, 93.2)],
        "colours": COLOURS,
        "icons": ICONS,
    }
    return render(request, "r1platform/styleguide.html", context)


COLOURS = (
    *("--bg", "--surface", "--sunken", "--raised", "--hover", "--line", "--text", "--muted", "--faint", "--accent"),
    *("--queued", "--running", "--waiting", "--succeeded", "--failed", "--lost", "--stopped"),
    *("--s1", "--s2", "--s3", "--s4", "--s5", "--s6", "--s7", "--s8"),
)
ICONS = (
    *("home", "data", "flow", "chart", "check", "deploy", "chat", "coins", "node", "gear", "person", "search"),
    *("close", "menu", "updown", "plus", "copy", "upload", "spark", "key", "gate", "arrow"),
)
