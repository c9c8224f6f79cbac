"""The door of pages that show one project: signed in, and a member of at least one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from r1platform.access import current_project
from r1platform.models import Project

P = ParamSpec("P")


def project_page(
    view: Callable[Concatenate[HttpRequest, Project, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Hands the view the project that is shown; who is a member of none goes to the overview, which says what to do."""

    @wraps(view)
    def door(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        project = current_project(request)
        if project is None:
            return redirect("overview")
        return view(request, project, *args, **kwargs)

    guarded: Any = login_required(door)
    return guarded  # type: ignore[no-any-return]
