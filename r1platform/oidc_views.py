"""Single sign-on in the browser: the way there, the way back, and tying an account to it. 404 where it is not set up."""

from __future__ import annotations

import time

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from r1platform.access import signed_in
from r1platform.lib.single_sign_on import SingleSignOn
from r1platform.oidc import Arrival, SignInRefused, arrive, depart
from r1platform.oidc_people import oidc_connect, oidc_disconnect, oidc_sign_in
from r1platform.views import SLOW_DOWN, SignInThrottle, backend, may_try, refuse, wanted_page

SESSION_CONNECT = "oidc_connect"
CONNECT_SECONDS = 300
"""So long after the wish, the way to the provider is one to connect an account."""


@login_not_required
@never_cache
@require_safe
def start(request: HttpRequest) -> HttpResponseBase:
    """To the provider. Who is signed in goes there only to connect their account."""
    sso = _sso()
    connect = _wish(request)
    if request.user.is_authenticated and connect is None:
        return redirect(wanted_page(request))
    if not may_try(request, SignInThrottle()):
        return refuse(request, 429, SLOW_DOWN)
    try:
        return depart(request, sso, to=wanted_page(request), connect=connect)
    except SignInRefused as error:
        return refuse(request, error.status, error.sentence)


@login_not_required
@never_cache
@require_safe
def callback(request: HttpRequest) -> HttpResponseBase:
    """Back from the provider."""
    sso = _sso()
    if not may_try(request, SignInThrottle()):
        return refuse(request, 429, SLOW_DOWN)
    try:
        found = arrive(request, sso)
        if found.connect is not None:
            return _connected(request, sso, found)
        user = oidc_sign_in(identity=found.identity, sso=sso)
    except SignInRefused as error:
        return refuse(request, error.status, error.sentence)
    login(request, user, backend=backend())
    return redirect(found.next)


@require_POST
def connect(request: HttpRequest) -> HttpResponse:
    """Says what comes next. The wish is kept here, behind the CSRF token: a link alone ties nothing to an account."""
    sso = _sso()
    request.session[SESSION_CONNECT] = [signed_in(request).pk, time.time()]
    return render(request, "r1platform/oidc_connect.html", {"sso": sso})


@require_POST
def disconnect(request: HttpRequest) -> HttpResponse:
    """The account is signed in to by other means from now on."""
    sso = _sso()
    if oidc_disconnect(issuer=sso.issuer, user=signed_in(request)):
        messages.success(request, f"{sso.name} does not sign you in any more.")
    return redirect("settings-keys")


def _connected(request: HttpRequest, sso: SingleSignOn, found: Arrival) -> HttpResponse:
    if not isinstance(request.user, User) or request.user.pk != found.connect:
        raise SignInRefused("You have signed out or in as somebody else meanwhile; nothing was connected.", status=400)
    oidc_connect(identity=found.identity, user=request.user)
    messages.success(request, f"{sso.name} signs you in from now on.")
    return redirect("settings-keys")


def _wish(request: HttpRequest) -> int | None:
    """Whose account is to be connected; the wish is used up."""
    user, at = request.session.pop(SESSION_CONNECT, (None, 0.0))
    is_meant = request.user.is_authenticated and request.user.pk == user and time.time() - at < CONNECT_SECONDS
    return user if is_meant else None


def _sso() -> SingleSignOn:
    if settings.R1_OIDC is None:
        raise Http404("Single sign-on is not set up here.")
    found: SingleSignOn = settings.R1_OIDC
    return found
