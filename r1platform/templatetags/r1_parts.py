"""Parts of pages that need more than a value: the rail, a form field, a meter, an empty page, a pager."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django import template
from django.contrib.auth.models import AnonymousUser, User
from django.core.paginator import Page
from django.forms import BoundField, CheckboxInput
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from r1platform.access import FORM_PROJECT, SESSION_PROJECT, role_in
from r1platform.context import shown_project
from r1platform.models import Project, Role

register = template.Library()

PLACES: tuple[tuple[str, str, str, str], ...] = (
    ("overview", "Overview", "home", "/"),
    ("dataset-list", "Datasets", "data", "/datasets/"),
    ("pipeline-list", "Pipelines", "flow", "/pipelines/ /launches/"),
    ("run-list", "Runs", "chart", "/runs/"),
    ("evaluation-list", "Evaluations", "check", "/evaluations/"),
    ("deployment-list", "Deployments", "deploy", "/deployments/"),
    ("playground", "Playground", "chat", "/playground/"),
    ("usage", "Usage and cost", "coins", "/usage/"),
    ("node-list", "Nodes", "node", "/nodes/"),
)
"""URL name, word, icon and the paths that belong to each place of the rail."""


KEYS = {"o": "overview", "d": "dataset-list", "p": "pipeline-list", "r": "run-list", "e": "evaluation-list",
        "m": "deployment-list", "c": "playground", "u": "usage", "n": "node-list"}  # fmt: skip
"""The letter that leads to a place after `g`."""


@register.inclusion_tag("partials/_keys.html")
def keys() -> dict[str, Any]:
    """What the keyboard can do; `static/js/keys.js` reads the places from it."""
    labels = {name: label for name, label, _icon, _paths in PLACES}
    return {"key_places": [(key, {"url": reverse(name), "label": labels[name]}) for key, name in KEYS.items()]}


@register.inclusion_tag("partials/_rail.html", takes_context=True)
def rail(context: template.Context) -> dict[str, Any]:
    """The left rail: project switch, places, settings, who is signed in. The project that it shows is remembered."""
    request: HttpRequest = context["request"]
    project = shown_project(context)
    if project and project != context.get("current_project"):
        request.session[SESSION_PROJECT] = project.pk
    return {
        "request": request,
        "csrf_token": context.get("csrf_token"),
        "user": request.user,
        "projects": _switch(context.get("projects") or [], project),
        "project": project,
        "places": [
            {"url": reverse(name), "label": label, "icon": icon, "current": _belongs(request.path, prefixes)}
            for name, label, icon, prefixes in PLACES
        ],
        "in_settings": request.path.startswith("/settings/"),
        "themes": (("auto", "As the system"), ("light", "Light"), ("dark", "Dark")),
    }


def _switch(projects: Iterable[Project], shown: Project | None) -> list[dict[str, Any]]:
    """What can be switched to; a name that several of them have comes with the short name."""
    found = [project for project in projects if project.archived_at is None or project == shown]
    often = Counter(project.name for project in found)
    return [
        {"project": project, "slug": project.slug if often[project.name] > 1 else "", "shown": project == shown}
        for project in found
    ]


def may_edit(user: User | AnonymousUser, project: Project | None) -> bool:
    """Whether the buttons that change something are shown; the doors check again."""
    return project is not None and project.archived_at is None and role_in(user, project) in {Role.EDITOR, Role.OWNER}


def _belongs(path: str, prefixes: str) -> bool:
    return any(path == "/" if prefix == "/" else path.startswith(prefix) for prefix in prefixes.split())


@register.simple_tag(takes_context=True)
def project_field(context: template.Context) -> SafeString | str:
    """Hidden field that ties a form to the project that its page shows, whatever another tab has switched to since."""
    project = shown_project(context)
    return format_html('<input type="hidden" name="{}" value="{}">', FORM_PROJECT, project.pk) if project else ""


@register.inclusion_tag("partials/_field.html")
def field(bound: BoundField) -> dict[str, Any]:
    """A labelled form field with its help and its errors, tied together for screen readers."""
    described = [f"{bound.id_for_label}-help"] if bound.help_text else []
    described += [f"{bound.id_for_label}-errors"] if bound.errors else []
    attributes: dict[str, str | bool] = {"aria-describedby": " ".join(described)} if described else {}
    if bound.errors:
        attributes["aria-invalid"] = "true"
    return {
        "field": bound,
        "widget": bound.as_widget(attrs=attributes),
        "is_check": isinstance(bound.field.widget, CheckboxInput),
    }


@register.inclusion_tag("partials/_meter.html")
def meter(value: float | None, label: str, tone: str = "running") -> dict[str, Any]:
    """A thin bar from 0 to 1; nothing when the value is not known."""
    shown = None if value is None else f"{min(max(value, 0.0), 1.0):.4f}"
    return {"value": shown, "label": label, "tone": tone}


@register.inclusion_tag("partials/_pager.html", takes_context=True)
def pager(context: template.Context, page: Page[Any]) -> dict[str, Any]:
    """Previous and next, keeping every other part of the address."""
    query = context["request"].GET.copy()
    query.pop("page", None)
    return {"page": page, "query": query.urlencode()}


@register.simple_tag(takes_context=True)
def address(context: template.Context, **changes: Any) -> str:
    """The query string of this page with some parts changed; None takes a part away."""
    query = context["request"].GET.copy()
    for key, value in changes.items():
        if value is None or value == "":
            query.pop(key, None)
        else:
            query[key] = value
    return f"?{query.urlencode()}"
