"""One run's page: the header with its stats, and a tab. What is live comes by socket (static/js/run)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from r1platform.access import for_user, role_in
from r1platform.models import Role
from training_app import selectors, services
from training_app.models import Checkpoint, MetricSeries, PhaseRun, RunEvent
from training_app.reward_models import PHASE as REWARD_MODEL
from training_app.states import GateVerdict, RunState
from training_app.views import run_code, run_words
from training_app.views.runs_new import reinforce_address

TABS = {
    "charts": "Charts",
    "rollouts": "Rollouts",
    "rewards": "Rewards",
    "experts": "Experts",
    "logs": "Logs",
    "checkpoints": "Checkpoints",
    "config": "Config",
    "history": "History",
}


@dataclass(frozen=True)
class Action:
    """A button of the header: the verb is the last part of its address, `loses` makes it ask first."""

    verb: str
    label: str
    primary: bool = False
    loses: str = ""
    asks_reason: bool = False
    """It is not done without a reason."""
    says: str = ""
    """What it does, for one that loses nothing; both kinds ask for a reason and take none too."""
    link: str = ""
    """Leads to a page with a form instead."""
    choices: tuple[Checkpoint, ...] = ()
    """Checkpoints of which one is to be chosen."""


@require_safe
def run_detail(request: HttpRequest, run_id: int, tab: str = "charts") -> HttpResponse:
    """The page with one tab open."""
    if tab not in TABS:
        raise Http404(f"A run has no tab “{tab}”.")
    run = run_of(request, run_id)
    context = {**header_context(request, run), "tab": tab, "tabs": _tabs(run), "page_context": _page_context(run, tab)}
    context |= _TAB_CONTEXT.get(tab, lambda _request, _run: {})(request, run)
    context["page_context"]["rollout_steps"] = context.get("rollout_steps", [])
    return render(request, f"training_app/run/{tab}.html", context)


@require_safe
def run_header(request: HttpRequest, run_id: int) -> HttpResponse:
    """Header and stats alone, asked for again whenever the run's stream says that something changed."""
    run = run_of(request, run_id)
    return render(request, "training_app/run/_header.html", {**header_context(request, run), "tabs": _tabs(run)})


def run_of(request: HttpRequest, run_id: int) -> PhaseRun:
    """The run if the user may see it, else 404."""
    runs = PhaseRun.objects.select_related(
        "project", "launch__pipeline", "dataset_version__dataset", "starts_from", "retry_of", "result_checkpoint",
    )  # fmt: skip
    return get_object_or_404(for_user(runs, request.user), pk=run_id)


def header_context(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    """What header and stats strip show."""
    attempt = run.attempts.select_related("node").order_by("-number").first()
    may_edit = role_in(request.user, run.project) in {Role.EDITOR, Role.OWNER}
    return {
        "run": run,
        "attempt": attempt,
        "may_edit": may_edit,
        "stats": run_words.stats(run),
        "progress": run_words.progress_words(run),
        "fraction": run_words.progress_fraction(run),
        "is_live": run.state in run_words.LIVE,
        "is_moving": run.state in run_words.MOVING,
        "actions": _actions(run) if may_edit else [],
        "error": _error(run),
        "stopping_words": run_words.STOPPING_WORDS,
        "notices": _notices(run),
        "open_alerts": selectors.open_alerts(run)[:5],
        "replaced": services.replacement_of(run),
    }


def _actions(run: PhaseRun) -> list[Action]:
    stop = Action("stop", "Stop…", loses=_loses(run))
    match run.state:
        case RunState.RUNNING | RunState.STARTING:
            return [stop, Action("pause", "Pause…", says="It writes a checkpoint at the next step, frees its device and waits.")]
        case RunState.QUEUED | RunState.WAITING:
            return [Action("stop", "Stop…", loses="It leaves the queue. Nothing has been computed yet.")]
        case RunState.PAUSED:
            says = "It goes on from its last checkpoint when a device is free."
            return [Action("resume", "Resume…", primary=True, says=says), stop]
        case RunState.GATE_FAILED:
            if services.replacement_of(run) is not None:
                return []
            override = Action("override", "Override gate…", primary=True, asks_reason=True)
            back = tuple(services.roll_back_choices(run))
            rolls = [Action("roll-back", "Roll back…", asks_reason=True, choices=back)] if back else []
            again = Action("retry", "Run again…", says="A new attempt begins at the beginning, with the next seed.")
            return [override, *rolls, again, _other_settings(run)]
        case RunState.FAILED | RunState.LOST | RunState.STOPPED:
            if services.replacement_of(run) is not None:
                return []
            says = "A new attempt starts from the last complete checkpoint, or from the beginning if there is none."
            return [Action("retry", "Retry from the last checkpoint…", primary=True, says=says), _other_settings(run)]
        case _:
            return []


def _other_settings(run: PhaseRun) -> Action:
    return Action("", "Other settings…", link=reverse("run-retry-changed", args=[run.pk]))


def _loses(run: PhaseRun) -> str:
    waits = " The pipeline behind it ends too." if run.launch_id else ""
    return f"It writes a checkpoint, ends and frees its device. You can retry from that checkpoint later.{waits}"


def _error(run: PhaseRun) -> dict[str, Any] | None:
    if run.state not in {RunState.FAILED, RunState.LOST}:
        return None
    error = (run.result or {}).get("error") or {}
    return {
        "message": error.get("message") or run.state_reason,
        "type": error.get("type", ""),
        "field": error.get("field", ""),
    }


def _notices(run: PhaseRun) -> list[RunEvent]:
    found = run.events.filter(kind__in=["fallback", "warning"]).order_by("-id")
    return list(found[:3])


def _tabs(run: PhaseRun) -> list[dict[str, Any]]:
    counts = {"checkpoints": run.checkpoints.filter(removed_at=None).count()}
    return [
        {"key": key, "label": label, "count": counts.get(key), "url": reverse("run-detail", args=[run.pk, key])}
        for key, label in TABS.items()
    ]


def _page_context(run: PhaseRun, tab: str) -> dict[str, Any]:
    """What the modules need: addresses, the cursor from which the socket goes on, names of the series."""
    newest = run.events.order_by("-id").values_list("id", flat=True).first()
    base = f"/api/v1/runs/{run.pk}/"
    return {
        "run": run.pk,
        "tab": tab,
        "live": run.state in run_words.MOVING,
        "last_event_id": newest or 0,
        "weights": run.config.get("reward", {}).get("weights", {}),
        "series": list(MetricSeries.objects.filter(run=run).order_by("name").values_list("name", flat=True)),
        "urls": {
            "socket": f"/ws/runs/{run.pk}/",
            "header": reverse("run-header", args=[run.pk]),
            "metrics": f"{base}metrics/",
            "rollouts": f"{base}rollouts/",
            "prompt": f"{base}prompt/",
            "rewards": f"{base}rewards/",
            "experts": f"{base}experts/",
            "experts_history": f"{base}experts/history/",
            "routes": f"{base}routes/",
            "log": f"{base}log/",
            "log_search": f"{base}log/search/",
            "log_download": f"{base}log/download/",
        },
    }


def _charts(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    names = list(MetricSeries.objects.filter(run=run).values_list("name", flat=True))
    has_rollouts = bool(selectors.run_rollout_steps(run)) if not names else False
    return {"metric_words": run_words.metric_words(names), "series": names, "has_rollouts": has_rollouts}


def _experts(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    """Checkpoints that can route a text, and a text of the run to begin with."""
    kept = run.checkpoints.filter(removed_at=None).order_by("-pk")[:50]
    return {"checkpoints": kept, "example": selectors.run_example(run) if kept else {}}


def _rollouts(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    steps = selectors.run_rollout_steps(run)
    samples = run.phase != "cold_start"
    return {"rollout_steps": steps, "samples": samples, "component_colours": run_words.COMPONENT_COLOURS}


def _rewards(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    return {"component_colours": run_words.COMPONENT_COLOURS, "rollout_steps": selectors.run_rollout_steps(run)}


def _logs(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    return {"attempts": run.attempts.order_by("-number"), "ranks": range(run.num_processes) if run.num_processes > 1 else []}


def _checkpoints(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    found = list(run.checkpoints.order_by("-step", "-id"))
    kept = [c for c in found if c.removed_at is None]
    key = run.config.get("checkpoint", {}).get("metric", "quality")
    best = max((c for c in kept if measure(c, key) is not None), key=lambda c: measure(c, key) or 0, default=None)
    newest = max(kept, key=lambda c: c.pk, default=None)
    rows = [
        {
            "checkpoint": c,
            "reinforce": reinforce_address(c) if run.phase == REWARD_MODEL else "",
            "accuracy": measure(c, "accuracy"),
            "quality": measure(c, "quality"),
            "loss": measure(c, "loss"),
            "is_best": c == best,
            "is_last": c == newest,
        }
        for c in found
    ]
    return {"rows": rows, "kept": len(kept), "best_by": key, "rule": run.config.get("checkpoint", {})}


def measure(checkpoint: Checkpoint, name: str) -> float | None:
    """A number measured at the checkpoint, under its own name or the name of the scalar."""
    value = checkpoint.metrics.get(name, checkpoint.metrics.get(f"eval/{name}"))
    return float(value) if isinstance(value, int | float) else None


def _config(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    other_id, other, differences = request.GET.get("with", ""), None, None
    if other_id.isdecimal() and len(other_id) < 18:
        other = get_object_or_404(for_user(PhaseRun.objects.all(), request.user), pk=int(other_id))
        differences = list(flat_differences(run.config, other.config))
    theirs = PhaseRun.objects.filter(project=run.project).only("name")
    others = for_user(theirs, request.user).exclude(pk=run.pk).order_by("-id")[:100]
    return {
        "config_json": json.dumps(run.config, indent=2, ensure_ascii=False),
        "codes": [
            ("As a command", "The same run by hand, wherever the library is installed. Name the directories on that machine.",
             run_code.as_command(run)),
            ("As code", "The settings that are not as they are by themselves.", run_code.as_python(run)),
            ("By the API", "A run like it on this platform, with a key that has the scope “write”.", run_code.as_request(run)),
        ],
        "rates": selectors.run_rates(run),
        "other": other,
        "differences": differences,
        "others": others,
    }


def flat_differences(ours: Any, theirs: Any, path: str = "") -> Any:
    """(path, ours, theirs) wherever two configurations differ; None where one has no such setting."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from flat_differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif ours != theirs:
        yield path, _shown(ours), _shown(theirs)


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _history(request: HttpRequest, run: PhaseRun) -> dict[str, Any]:
    labels = dict(RunState.choices)
    moves = [
        {"move": t, "before": labels.get(t.before, t.before), "after": labels.get(t.after, t.after)}
        for t in run.transitions.select_related("user").order_by("-id")
    ]
    return {
        "moves": moves,
        "attempts": run.attempts.select_related("node").order_by("-number"),
        "alerts": selectors.run_alerts(run)[:50],
        "overridden": run.gate_verdict == GateVerdict.OVERRIDDEN,
        "changes": list(flat_differences(run.retry_of.config, run.config)) if run.retry_of else [],
    }


_TAB_CONTEXT = {
    "charts": _charts,
    "rollouts": _rollouts,
    "experts": _experts,
    "rewards": _rewards,
    "logs": _logs,
    "checkpoints": _checkpoints,
    "config": _config,
    "history": _history,
}
