"""What Ctrl/⌘ K can reach: places, actions, and the project's things by kind, number and name."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import F, Q, QuerySet, TextField, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Concat
from django.urls import reverse

from r1platform.access import for_user, role_in
from r1platform.lib.ids import id_of
from r1platform.models import Project, Role
from r1platform.templatetags.r1_parts import PLACES, may_edit
from serving_app.models import Conversation, Deployment
from training_app.models import Dataset, Launch, PhaseRun, Pipeline
from training_app.states import LIVE_RUNS, RunState

PER_KIND = 8
MAX_WORDS = 6
MORE_PLACES = (
    ("settings-project", "Project settings and members"),
    ("settings-keys", "API keys"),
    ("styleguide", "Style guide"),
)
ACTIONS = (
    ("dataset-new", "New dataset"),
    ("pipeline-new", "New pipeline"),
    ("pipeline-list", "Launch a pipeline"),
    ("run-new", "New single run"),
    ("deployment-new", "Deploy a checkpoint"),
    ("imported-models", "Import a model"),
)
"""For editors."""
Reader = User | AnonymousUser


def palette_items(*, user: Reader, project: Project | None, text: str) -> list[dict[str, Any]]:
    """Items `{label, kind, url}`; places and actions always, things in which every word of `text` is found."""
    items = [_item(label, "page", reverse(name)) for name, label, _icon, _paths in PLACES]
    items += [_item(label, "page", reverse(name)) for name, label in MORE_PLACES]
    items.append(_item("Make an API key", "action", f"{reverse('settings-keys')}#new-key"))
    if project is None:
        return items
    items.append(_item("New chat", "action", reverse("playground")))
    if role_in(user, project) == Role.OWNER:
        items.append(_item("Audit log", "page", reverse("settings-audit")))
    if may_edit(user, project):
        items += [_item(label, "action", reverse(name)) for name, label in ACTIONS]
        items += _stops(user=user, project=project, text=text)
    return items + _things(user=user, project=project, text=text)


def _stops(*, user: Reader, project: Project, text: str) -> list[dict[str, Any]]:
    """The pages on which the runs that go or wait can be stopped; they are not listed before something is typed."""
    if not text:
        return []
    runs = PhaseRun.objects.filter(project=project, state__in=[*LIVE_RUNS, RunState.QUEUED])
    return [
        _item(f"Stop run {run.pk}, {run.name}", "on its page", reverse("run-detail", args=[run.pk]))
        for run in _found(runs, user, text, "stop run", F("name"))
    ]


def _things(*, user: Reader, project: Project, text: str) -> list[dict[str, Any]]:
    runs = _found(PhaseRun.objects.filter(project=project), user, text, "run", F("name"), F("state"))
    items = [_item(str(run), f"run, {run.get_state_display().lower()}", reverse("run-detail", args=[run.pk])) for run in runs]
    for rows, kind in (
        (Pipeline.objects.filter(project=project), "pipeline"),
        (Dataset.objects.filter(project=project), "dataset"),
        (Deployment.objects.filter(project=project, deleted_at=None), "deployment"),
    ):
        items += [
            _item(thing.name, f"{kind} {thing.pk}", reverse(f"{kind}-detail", args=[thing.pk]))
            for thing in _found(rows, user, text, kind, F("name"))
        ]
    return items + _launches(user, project, text) + _chats(user, project, text)


def _launches(user: Reader, project: Project, text: str) -> list[dict[str, Any]]:
    rows = Launch.objects.filter(pipeline__project=project).select_related("pipeline")
    number = Concat(Value("#"), F("number"), output_field=TextField())
    found = _found(rows, user, text, "launch", F("pipeline__name"), number, path="pipeline__project")
    return [_item(str(launch), "launch", reverse("launch-detail", args=[launch.pk])) for launch in found]


def _chats(user: Reader, project: Project, text: str) -> list[dict[str, Any]]:
    rows = Conversation.objects.filter(project=project, user_id=user.pk or 0)
    found = _found(rows, user, text, "chat", F("title"))
    return [_item(chat.title, f"chat {chat.pk}", reverse("conversation", args=[chat.pk])) for chat in found]


def _found(rows: QuerySet[Any], user: Reader, text: str, kind: str, *parts: Combinable, path: str = "project") -> list[Any]:
    """Rows whose kind, number and `parts` hold every word of `text`; those with its very number first, then the newest."""
    typed = text.split()[:MAX_WORDS]
    spaced = [piece for part in parts for piece in (Value(" "), part)]
    found = for_user(rows, user, path=path).annotate(
        words=Concat(Value(kind), *spaced, output_field=TextField()),
        is_named=Q(pk__in=[_number(word) for word in typed] or [0]),
    )
    for word in typed:
        found = found.filter(Q(words__icontains=word) | Q(pk=_number(word)))
    return list(found.order_by("-is_named", "-pk")[:PER_KIND])


def _number(word: str) -> int:
    """The id that a word can be; 0, which nothing has, for any other."""
    return id_of(word) or 0


def _item(label: str, kind: str, url: str) -> dict[str, Any]:
    return {"label": label, "kind": kind, "url": url}
