"""What Ctrl/⌘ K can reach: places, actions, and the project's things by name."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Q, QuerySet
from django.urls import reverse

from r1platform.access import for_user, role_in
from r1platform.models import Project, Role
from r1platform.templatetags.r1_parts import PLACES, may_edit
from serving_app.models import Conversation, Deployment
from training_app.models import Dataset, PhaseRun, Pipeline

PER_KIND = 8
MORE_PLACES = (
    ("settings-project", "Project settings and members"),
    ("settings-keys", "API keys"),
    ("styleguide", "Style guide"),
)
ACTIONS = (
    ("dataset-new", "Add a dataset"),
    ("pipeline-new", "Make a pipeline"),
    ("run-new", "Queue a single run"),
    ("deployment-new", "Deploy a checkpoint"),
)


def palette_items(*, user: User | AnonymousUser, project: Project | None, text: str) -> list[dict[str, Any]]:
    """Items `{label, kind, url}`; places always, things whose name holds `text`."""
    items = [_item(label, "page", reverse(name)) for name, label, _icon, _paths in PLACES]
    items += [_item(label, "page", reverse(name)) for name, label in MORE_PLACES]
    if project is None:
        return items
    if role_in(user, project) == Role.OWNER:
        items.append(_item("Audit log", "page", reverse("settings-audit")))
    if may_edit(user, project):
        items += [_item(label, "action", reverse(name)) for name, label in ACTIONS]
    return items + _things(user=user, project=project, text=text)


def _things(*, user: User | AnonymousUser, project: Project, text: str) -> list[dict[str, Any]]:
    runs = _named(PhaseRun.objects.filter(project=project), user, text, number=True)
    items = [
        _item(str(run), f"run, {run.get_state_display().lower()}", reverse("run-detail", args=[run.pk])) for run in runs
    ]
    for found, kind, name in (
        (_named(Pipeline.objects.filter(project=project), user, text), "pipeline", "pipeline-detail"),
        (_named(Dataset.objects.filter(project=project), user, text), "dataset", "dataset-detail"),
        (
            _named(Deployment.objects.filter(project=project, deleted_at=None), user, text),
            "deployment",
            "deployment-detail",
        ),
    ):
        items += [_item(thing.name, kind, reverse(name, args=[thing.pk])) for thing in found]
    chats = for_user(Conversation.objects.filter(project=project), user).filter(user_id=user.pk or 0, title__icontains=text)
    return items + [
        _item(chat.title, "chat", reverse("conversation", args=[chat.pk])) for chat in chats.order_by("-id")[:PER_KIND]
    ]


def _named(rows: QuerySet[Any], user: User | AnonymousUser, text: str, *, number: bool = False) -> QuerySet[Any]:
    wanted = Q()
    for word in text.split()[:4]:
        by_number = Q(pk=int(word)) if number and word.isdecimal() and len(word) < 18 else Q()
        wanted &= Q(name__icontains=word) | by_number
    return for_user(rows, user).filter(wanted).order_by("-id")[:PER_KIND]


def _item(label: str, kind: str, url: str) -> dict[str, Any]:
    return {"label": label, "kind": kind, "url": url}
