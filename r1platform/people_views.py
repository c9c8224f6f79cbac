"""Settings for owners: rename, archive, invite; and the page that an invitation's link opens."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required, login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from r1platform import services
from r1platform.access import SESSION_PROJECT, current_project, require_role, signed_in
from r1platform.invitations import (
    DAYS,
    SPENT,
    invitation_create,
    invitation_find,
    invitation_list,
    invitation_revoke,
    invitation_sign_up,
    invitation_use,
)
from r1platform.models import Invitation, Project, Role
from r1platform.views import NO_PASSWORDS, SLOW_DOWN, SignInThrottle, backend, may_try, ways

SESSION_LINK = "new_invitation"
"""Where the text of a link waits for the page that shows it once."""
TEMPLATE = "r1platform/invitation.html"
NO_CHANGE = "The project was not changed."


class InviteForm(forms.Form):
    """A new invitation."""

    role = forms.ChoiceField(choices=Role.choices, initial=Role.EDITOR)
    days = forms.TypedChoiceField(
        coerce=int, choices=[(days, "A day" if days == 1 else f"{days} days") for days in DAYS], initial=7, label="Ends after"
    )
    note = forms.CharField(max_length=120, required=False, label="For whom", help_text="So that you know later whose link it is.")


class SignUpForm(forms.Form):
    """The account of somebody who was invited."""

    username = forms.CharField(max_length=150, label="Name", help_text="What you sign in with.")
    password = forms.CharField(
        max_length=4096, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}), strip=False,
        help_text="At least eight characters, not a common word, not only digits.",
    )  # fmt: skip


@login_required
@require_POST
def project_save(request: HttpRequest) -> HttpResponse:
    """Renames or describes the project."""
    project = _owned(request)
    name, description = request.POST.get("name", ""), request.POST.get("description", "")
    try:
        services.project_update(project=project, by=signed_in(request), name=name, description=description[:2000])
    except ValidationError as error:
        messages.error(request, " ".join([NO_CHANGE, *error.messages]))
    else:
        messages.success(request, "Saved.")
    return redirect("settings-project")


@login_required
@require_POST
def project_archive(request: HttpRequest) -> HttpResponse:
    """Archives the project, or brings it back (`restore`)."""
    project, by = _owned(request), signed_in(request)
    if "restore" in request.POST:
        services.project_restore(project=project, by=by)
        messages.success(request, f"“{project.name}” is in use again.")
    else:
        services.project_archive(project=project, by=by)
        messages.success(request, f"“{project.name}” is archived. What runs in it goes on to its end.")
    return redirect("settings-project")


@login_required
@require_POST
def invitation_new(request: HttpRequest) -> HttpResponse:
    """Makes a link; the page that this leads to shows it, once."""
    project, form = _owned(request), InviteForm(request.POST)
    if not form.is_valid():
        messages.error(request, "No link was made. " + " ".join(str(text) for texts in form.errors.values() for text in texts))
        return redirect("settings-project")
    values = form.cleaned_data
    _made, path = invitation_create(
        project=project, by=signed_in(request), role=Role(values["role"]), days=values["days"], note=values["note"]
    )
    request.session[SESSION_LINK] = request.build_absolute_uri(path)
    return redirect(f"{reverse('settings-project')}#invitations")


@login_required
@require_POST
def invitation_end(request: HttpRequest, invitation_id: int) -> HttpResponse:
    """Ends a link that nobody has used."""
    project = _owned(request)
    found = get_object_or_404(Invitation, pk=invitation_id, project=project)
    if invitation_revoke(invitation=found, by=signed_in(request)):
        messages.success(request, "The link does not work any more.")
    return redirect(f"{reverse('settings-project')}#invitations")


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Says who invites where; one button joins, and who has no account makes one here. Looking uses nothing up."""
    found = invitation_find(token=token)
    if found is None:
        return render(request, TEMPLATE, {"error": SPENT}, status=404)
    if request.method != "POST":
        return render(request, TEMPLATE, {"invitation": found, "form": SignUpForm(), **ways()})
    if isinstance(request.user, User):
        return _joined(request, invitation_use(token=token, user=request.user))
    if not may_try(request, SignInThrottle()):
        return render(request, TEMPLATE, {"invitation": found, "form": SignUpForm(), "error": SLOW_DOWN, **ways()}, status=429)
    if not settings.R1_PASSWORD_SIGN_IN:
        return render(request, TEMPLATE, {"invitation": found, "error": NO_PASSWORDS, **ways()}, status=403)
    form = SignUpForm(request.POST)
    if form.is_valid():
        try:
            user = invitation_sign_up(token=token, **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            if user is not None:
                login(request, user, backend=backend())
            return _joined(request, found.project if user is not None else None)
    return render(request, TEMPLATE, {"invitation": found, "form": form, **ways()}, status=422)


def _joined(request: HttpRequest, project: Project | None) -> HttpResponse:
    if project is None:
        return render(request, TEMPLATE, {"error": SPENT}, status=404)
    request.session[SESSION_PROJECT] = project.pk
    messages.success(request, f"You are a member of “{project.name}” now.")
    return redirect("overview")


def invitation_context(request: HttpRequest, project: Project) -> dict[str, Any]:
    """What the settings page shows of invitations to an owner; the text of a new link is taken out of the session."""
    link = request.session.pop(SESSION_LINK, "") if request.method == "GET" else ""
    return {"invitations": invitation_list(project=project), "invite_form": InviteForm(), "new_link": link}


def _owned(request: HttpRequest) -> Project:
    """The project that the form's page shows; for its owners. Raises PermissionDenied."""
    project = current_project(request)
    if project is None:
        raise PermissionDenied("You are not a member of any project.")
    require_role(request.user, project, Role.OWNER, even_archived=True)
    return project
