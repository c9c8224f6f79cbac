"""Settings: the project and its members, one's own API keys, the audit log."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from r1platform import selectors, services
from r1platform.access import current_project, require_role, role_in
from r1platform.keys import MOST, SCOPES, KeyRefused, api_key_create, api_key_limit, api_key_revoke
from r1platform.models import ApiKey, AuditEntry, Project, Role
from r1platform.oidc_people import oidc_context
from r1platform.people_views import invitation_context

PER_PAGE = 50
SESSION_KEY_TEXT = "new_key"
"""Where the text of a key waits for the page that shows it once."""
LIFETIMES = (("30", "30 days"), ("90", "90 days"), ("365", "A year"), ("", "No end"))
SCOPE_WORDS = {
    "read": "Read: everything you can see",
    "write": "Write: launch, stop, deploy",
    "inference": "Inference: ask deployed models",
}


class ProjectForm(forms.Form):
    """A new project."""

    name = forms.CharField(max_length=80, help_text="Datasets, pipelines, runs and deployments belong to a project.")


class MemberForm(forms.Form):
    """Who belongs to the project, as what."""

    username = forms.CharField(max_length=150, label="User", help_text="The name that the person signs in with.")
    role = forms.ChoiceField(choices=Role.choices, initial=Role.EDITOR)

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        self.user = User.objects.filter(username=name, is_active=True).first()
        if self.user is None:
            raise ValidationError(f"Nobody here is called “{name}”. An administrator adds people under Admin, Users.")
        return name


def _limit(name: str, label: str, help_text: str = "") -> forms.IntegerField:
    return forms.IntegerField(required=False, min_value=1, max_value=MOST[name], label=label, help_text=help_text)


class LimitsForm(forms.Form):
    """How much a key may ask of models; an empty field is no limit."""

    requests_per_minute = _limit("requests_per_minute", "Requests a minute")
    tokens_per_minute = _limit(
        "tokens_per_minute", "Tokens a minute", "Prompt and longest answer are reserved when a request begins."
    )
    concurrent_requests = _limit("concurrent_requests", "Requests at the same time")
    dollars_per_month = forms.DecimalField(
        required=False, min_value=Decimal("0.01"), max_value=MOST["dollars_per_month"], decimal_places=2, label="Dollars a month",
        help_text="By the prices of the deployments; a month begins on its first day in UTC.",
    )  # fmt: skip


class KeyForm(LimitsForm):
    """A new API key."""

    field_order = ["name", "project", "scopes", "lifetime", *MOST]

    name = forms.CharField(max_length=80, help_text="What will use it, such as “notebook”.")
    project = forms.ModelChoiceField(
        queryset=Project.objects.none(),
        required=False,
        empty_label="All my projects",
        help_text="A key can be held to one project.",
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, SCOPE_WORDS[scope]) for scope in SCOPES],
        widget=forms.CheckboxSelectMultiple,
        initial=["read", "inference"],
    )
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, initial="90", label="Ends after")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["project"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = selectors.project_list(user=user)


@login_required
@require_safe
def settings_project(request: HttpRequest) -> HttpResponse:
    """Name, members and their roles; making a project."""
    return _project_page(request, MemberForm(), ProjectForm())


def _project_page(request: HttpRequest, member_form: MemberForm, project_form: ProjectForm) -> HttpResponse:
    project = current_project(request)
    role = role_in(request.user, project) if project else None
    context = {
        "project": project,
        "members": selectors.project_members(project=project) if project else [],
        "roles": Role.choices,
        "is_owner": role == Role.OWNER,
        "role": role,
        "member_form": member_form,
        "project_form": project_form,
    }
    if project and role == Role.OWNER:
        context |= invitation_context(request, project)
    bound = member_form.is_bound or project_form.is_bound
    return render(request, "r1platform/settings_project.html", context, status=422 if bound else 200)


@login_required
@require_POST
def project_new(request: HttpRequest) -> HttpResponse:
    """Makes a project and shows it."""
    form = ProjectForm(request.POST)
    if form.is_valid():
        try:
            project = services.project_create(user=_user(request), name=form.cleaned_data["name"])
        except ValidationError as error:
            form.add_error(None, error)
        else:
            request.session["project"] = project.pk
            messages.success(request, f"“{project.name}” is ready. You are its owner.")
            return redirect("overview")
    return _project_page(request, MemberForm(), form)


@login_required
@require_POST
def member_save(request: HttpRequest) -> HttpResponse:
    """Adds a member, changes a role, or takes the membership away (`role` empty). For owners."""
    project = current_project(request)
    if project is None:
        raise PermissionDenied("You are not a member of any project.")
    require_role(request.user, project, Role.OWNER, even_archived=True)
    removing = request.POST.get("role") == ""
    form = MemberForm(request.POST if not removing else {**request.POST.dict(), "role": Role.VIEWER})
    if form.is_valid() and form.user is not None:
        try:
            role = None if removing else Role(form.cleaned_data["role"])
            services.member_set(project=project, user=form.user, role=role, by=_user(request))
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
        else:
            done = "is no longer a member" if removing else f"is {form.cleaned_data['role']} now"
            messages.success(request, f"{form.user.get_username()} {done}.")
        return redirect("settings-project")
    return _project_page(request, form, ProjectForm())


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def settings_keys(request: HttpRequest) -> HttpResponse:
    """One's own keys; a POST makes one, and the page that it leads to shows its text, once."""
    user = _user(request)
    form = KeyForm(request.POST or None, user=user, initial={"project": current_project(request)})
    if request.method == "POST" and form.is_valid() and (text := _key_made(request, form)):
        request.session[SESSION_KEY_TEXT] = text
        return redirect("settings-keys")
    secret = request.session.pop(SESSION_KEY_TEXT, "") if request.method == "GET" else ""
    context = {
        "keys": _with_limits(selectors.api_key_list(user=user)), "form": form, "secret": secret, "now": timezone.now(),
        **oidc_context(user),
    }  # fmt: skip
    return render(request, "r1platform/settings_keys.html", context, status=422 if form.is_bound else 200)


def _key_made(request: HttpRequest, form: KeyForm) -> str:
    """The text of the new key; empty, with the sentence in the form, when it was refused."""
    values = form.cleaned_data
    days = values["lifetime"]
    try:
        _key, secret = api_key_create(
            user=_user(request),
            name=values["name"],
            scopes=values["scopes"],
            project=values["project"],
            expires_at=timezone.now() + timedelta(days=int(days)) if days else None,
            **{limit: values[limit] for limit in MOST},
        )
    except KeyRefused as error:
        form.add_error(error.field, str(error))
        return ""
    return secret


def _with_limits(keys: QuerySet[ApiKey]) -> list[dict[str, Any]]:
    """Each key with the form of its limits, filled in; ids of fields differ from key to key."""
    names = list(MOST)
    return [
        {"key": key, "form": LimitsForm(initial={name: getattr(key, name) for name in names}, auto_id=f"key-{key.pk}-%s")}
        for key in keys
    ]


@login_required
@require_POST
def key_limit(request: HttpRequest, key_id: int) -> HttpResponse:
    """Changes the limits of one of one's own keys."""
    key = get_object_or_404(ApiKey, pk=key_id, user=_user(request))
    form = LimitsForm(request.POST)
    if form.is_valid():
        api_key_limit(key=key, by=_user(request), **form.cleaned_data)
        messages.success(request, f"“{key.name}” has new limits; they hold within a second.")
    else:
        for name, errors in form.errors.items():
            messages.error(request, f"{form.fields[name].label}: {' '.join(map(str, errors))}")
    return redirect("settings-keys")


@login_required
@require_POST
def key_revoke(request: HttpRequest, key_id: int) -> HttpResponse:
    """Ends one of one's own keys."""
    key = get_object_or_404(ApiKey, pk=key_id, user=_user(request))
    if api_key_revoke(key=key, by=_user(request)):
        messages.success(request, f"“{key.name}” is revoked. Whatever used it is refused from now on.")
    return redirect("settings-keys")


class AuditForm(forms.Form):
    """What the log is narrowed to."""

    q = forms.CharField(max_length=80, required=False, label="Search")
    user = forms.CharField(max_length=150, required=False, label="Who")
    kind = forms.CharField(max_length=80, required=False, label="What")
    since = forms.DateField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))

    def narrow(self, entries: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        """The entries that fit every part that can be read."""
        found = self.cleaned_data
        for word in found.get("q", "").split():
            fits = Q(action__icontains=word) | Q(user__username__icontains=word) | Q(target__icontains=word)
            entries = entries.filter(fits | Q(detail__icontains=word))
        if found.get("user"):
            entries = entries.filter(user__username=found["user"])
        if found.get("kind"):
            entries = entries.filter(action__startswith=f"{found['kind']}.")
        if found.get("since"):
            entries = entries.filter(created_at__date__gte=found["since"])
        if found.get("until"):
            entries = entries.filter(created_at__date__lte=found["until"])
        return entries


@login_required
@require_safe
def settings_audit(request: HttpRequest) -> HttpResponse:
    """Who did what in this project. For owners, as in the API."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    require_role(request.user, project, Role.OWNER, even_archived=True)
    everything = selectors.audit_list(user=request.user, project=project)
    form = AuditForm(request.GET)
    form.is_valid()
    page = Paginator(form.narrow(everything), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "form": form,
        "given": form.cleaned_data,
        "narrowed": any(form.cleaned_data.values()),
        "project": project,
        **selectors.audit_choices(entries=everything),
    }
    return render(request, "r1platform/settings_audit.html", context, status=422 if form.errors else 200)


def _user(request: HttpRequest) -> User:
    assert request.user.is_authenticated
    return request.user
