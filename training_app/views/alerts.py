"""Alerts: the rules of a project under Settings, what they have found under Runs."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.detectors import DETECTORS
from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from r1platform.access import current_project, for_user, require_role, role_in, signed_in
from r1platform.form_words import WordedForm
from r1platform.models import Project, Role, Webhook
from training_app import selectors, services
from training_app.alert_messages import members_with_mail
from training_app.alert_rules import condition
from training_app.models import Alert, AlertKind, AlertRule
from training_app.search_fields import SearchedField

PER_PAGE = 50
EDITORS = {Role.EDITOR, Role.OWNER}
KINDS_OF = {
    "metric": "above below nonfinite", "threshold": "above below money", "steps": "above below", "sign": "sign", "seconds": "stall",
}  # fmt: skip
"""Fields that only some kinds of rule have; the page hides the others."""


class RuleForm(WordedForm):
    """A rule. What does not belong to its kind is left alone."""

    name = forms.CharField(max_length=80, help_text="It is the headline of the alert.")
    kind = forms.ChoiceField(choices=AlertKind.choices, label="Calls when")
    metric = forms.CharField(
        max_length=120, required=False, help_text="As the charts name it: kl, entropy, len/mean, truncated_ratio, reward/total.",
        widget=forms.TextInput(attrs={"list": "metric-names", "autocomplete": "off"}),
    )  # fmt: skip
    threshold = forms.FloatField(
        required=False, label="Number",
        help_text="For a key, percent of its dollars a month. What could cost more than is left is refused before 100.",
    )  # fmt: skip
    steps = forms.IntegerField(required=False, initial=1, min_value=1, max_value=10_000, label="Measurements in a row")
    sign = forms.ChoiceField(choices=[("", "Any sign"), *((name, name.replace("_", " ").capitalize()) for name in DETECTORS)],
                             required=False)  # fmt: skip
    seconds = forms.FloatField(required=False, initial=900, label="Seconds without a word", help_text="While a run trains.")
    phase = forms.ChoiceField(choices=[], required=False, label="Only runs of")
    run = SearchedField("runs", required=False, empty_label="Every run", label="Only run")
    mail_to = forms.ModelMultipleChoiceField(queryset=User.objects.none(), required=False, widget=forms.CheckboxSelectMultiple,
                                             label="Mail to", help_text="Members who have an address.")  # fmt: skip
    webhook = forms.ModelChoiceField(queryset=Webhook.objects.none(), required=False, empty_label="None")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["phase"].choices = [("", "Any phase"), *((n, n.replace("_", " ")) for n in PHASES.names())]  # type: ignore[attr-defined]
        self.fields["run"].offer(project)  # type: ignore[attr-defined]
        self.fields["mail_to"].queryset = members_with_mail(project)  # type: ignore[attr-defined]
        self.fields["webhook"].queryset = Webhook.objects.filter(project=project)  # type: ignore[attr-defined]

    def values(self) -> dict[str, Any]:
        """What the service takes."""
        values = {**self.cleaned_data, "mail_to": list(self.cleaned_data["mail_to"])}
        return {**values, "steps": values["steps"] or 1}

    def rows(self) -> list[tuple[forms.BoundField, str]]:
        """Each field with the kinds that it belongs to."""
        return [(bound, KINDS_OF.get(bound.name, "")) for bound in self]


@require_http_methods(["GET", "HEAD", "POST"])
def alert_rules(request: HttpRequest) -> HttpResponse:
    """The rules of the project; a POST makes one."""
    project = _project(request)
    if request.method == "POST":
        require_role(request.user, project, Role.EDITOR)
    form = RuleForm(request.POST or None, project=project, initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        try:
            made = services.alert_rule_create(project=project, user=signed_in(request), **form.values())
        except ModelCoreError as error:
            form.add_error(error.field if error.field in form.fields else None, error.message)
        else:
            what = "keys" if made.kind == AlertKind.MONEY else "every run"
            messages.success(request, f"“{made.name}” looks at {what} from now on: {condition(made)}.")
            return redirect("alert-rules")
    return _rules_page(request, project, form)


@require_http_methods(["GET", "HEAD", "POST"])
def alert_rule_edit(request: HttpRequest, rule_id: int) -> HttpResponse:
    """One rule; a POST keeps what was changed."""
    rule = _rule(request, rule_id)
    initial = {name: getattr(rule, name) for name in ("name", "kind", "metric", "threshold", "steps", "sign", "seconds", "phase")}
    initial |= {"run": rule.run_id, "webhook": rule.webhook_id, "mail_to": list(rule.mail_to.values_list("pk", flat=True))}
    form = RuleForm(request.POST or None, project=rule.project, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            services.alert_rule_update(rule=rule, user=signed_in(request), **form.values())
        except ModelCoreError as error:
            form.add_error(error.field if error.field in form.fields else None, error.message)
        else:
            messages.success(request, f"“{rule.name}” is kept: {condition(rule)}.")
            return redirect("alert-rules")
    context = {"rule": rule, "form": form, "project": rule.project, **_names(rule.project)}
    return render(request, "training_app/alerts/rule.html", context, status=422 if form.is_bound else 200)


@require_POST
def alert_rule_act(request: HttpRequest, rule_id: int, verb: str) -> HttpResponse:
    """Switches a rule on or off, or deletes it."""
    rule = _rule(request, rule_id)
    match verb:
        case "on" | "off":
            services.alert_rule_update(rule=rule, user=signed_in(request), is_enabled=verb == "on")
            messages.success(request, f"“{rule.name}” is switched {verb}.")
        case "delete":
            services.alert_rule_delete(rule=rule, user=signed_in(request))
            messages.success(request, f"“{rule.name}” is deleted. What it had found stays.")
        case _:
            raise Http404(f"A rule cannot “{verb}”.")
    return redirect("alert-rules")


@require_POST
def alert_rules_usual(request: HttpRequest) -> HttpResponse:
    """Makes the usual rules that are not there yet."""
    project = _project(request)
    require_role(request.user, project, Role.EDITOR)
    try:
        made = services.alert_rules_usual(project=project, user=signed_in(request))
    except ModelCoreError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{len(made)} rules look from now on." if made else "The usual rules are all there.")
    return redirect("alert-rules")


@require_safe
def alert_list(request: HttpRequest) -> HttpResponse:
    """What the rules have found, open or over."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    shown = {"open": True, "over": False}.get(request.GET.get("show", "open"))
    found = selectors.alert_list(user=request.user, project=project, is_open=shown)
    if text := request.GET.get("q", "").strip():
        about = Q(run__name__icontains=text) | Q(api_key__name__icontains=text)
        found = found.filter(Q(message__icontains=text) | Q(name__icontains=text) | about)
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page, "project": project, "show": request.GET.get("show", "open"), "q": text,
        "may_edit": role_in(request.user, project) in EDITORS,
        "num_rules": selectors.alert_rule_list(user=request.user, project=project).count(),
    }  # fmt: skip
    return render(request, "training_app/alerts/list.html", context)


@require_POST
def alert_see(request: HttpRequest, alert_id: int) -> HttpResponse:
    """Somebody has seen to an alert."""
    alerts = for_user(Alert.objects.select_related("project", "run", "api_key", "rule"), request.user)
    alert = get_object_or_404(alerts, pk=alert_id)
    require_role(request.user, alert.project, Role.EDITOR)
    if services.alert_see(alert=alert, user=signed_in(request), note=request.POST.get("note", "")[:2000]):
        messages.success(request, f"“{alert.name}” of {alert.about} is closed, with your name.")
    else:
        messages.info(request, f"“{alert.name}” of {alert.about} was closed before.")
    if request.POST.get("back") == "list" or alert.run_id is None:
        return redirect("alert-list")
    return redirect("run-detail", run_id=alert.run_id)


def _rules_page(request: HttpRequest, project: Project, form: RuleForm) -> HttpResponse:
    rules = selectors.alert_rule_list(user=request.user, project=project)
    context = {
        "rules": [{"rule": rule, "condition": condition(rule)} for rule in rules], "form": form, "project": project,
        "may_edit": role_in(request.user, project) in EDITORS, "sends_mail": bool(settings.R1_EMAIL_URL), **_names(project),
    }  # fmt: skip
    return render(request, "training_app/alerts/rules.html", context, status=422 if form.is_bound else 200)


def _names(project: Project) -> dict[str, Any]:
    """Metrics to choose from: those that the project's runs have told."""
    return {"metric_names": selectors.alert_metric_names(project=project)}


def _initial(request: HttpRequest) -> dict[str, Any]:
    """What a link to the form fills in."""
    return {name: request.GET[name] for name in ("kind", "metric", "run", "phase", "name") if request.GET.get(name)}


def _project(request: HttpRequest) -> Project:
    project = current_project(request)
    if project is None:
        raise Http404("You have no project.")
    return project


def _rule(request: HttpRequest, rule_id: int) -> AlertRule:
    rule = get_object_or_404(for_user(AlertRule.objects.select_related("project"), request.user), pk=rule_id)
    require_role(request.user, rule.project, Role.EDITOR)
    return rule


urlpatterns = [
    path("settings/alerts/", alert_rules, name="alert-rules"),
    path("settings/alerts/usual/", alert_rules_usual, name="alert-rules-usual"),
    path("settings/alerts/<int:rule_id>/", alert_rule_edit, name="alert-rule-edit"),
    path("settings/alerts/<int:rule_id>/act/<str:verb>/", alert_rule_act, name="alert-rule-act"),
    path("runs/alerts/", alert_list, name="alert-list"),
    path("runs/alerts/<int:alert_id>/see/", alert_see, name="alert-see"),
]
