"""Signing in and out. Links work once and only by POST, so that a mail scanner that follows them uses none up.
Single sign-on is in `r1platform.oidc_views`.

Guessing is slowed twice: by the address that asks, and by the name that is tried, from wherever it comes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST
from rest_framework.throttling import AnonRateThrottle, SimpleRateThrottle

from r1platform.services import sign_in_link_is_open, sign_in_link_use

TEMPLATE = "r1platform/sign_in.html"
SLOW_DOWN = "Too many attempts; wait a minute and try again."
NO_PASSWORDS = "Passwords are switched off here; sign in the other way, or with a one-time link."
SPENT = "This link has been used, has expired or never was one; make another with ./r1 sign_in_link NAME."


class SignInThrottle(AnonRateThrottle):
    """By address: REMOTE_ADDR, behind a proxy the address that the proxy saw; what a caller claims counts for nothing."""

    scope = "sign_in"


class SignInNameThrottle(SimpleRateThrottle):
    """By the name that is tried; a one-time link is not slowed by it."""

    scope = "sign_in_name"

    def get_cache_key(self, request: HttpRequest, view: object) -> str:
        name = request.POST.get("username", "").casefold()
        ident = hashlib.sha256(name.encode(errors="replace")).hexdigest()
        return str(self.cache_format % {"scope": self.scope, "ident": ident})


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """By name and password; `next` leads back to the page that asked."""
    if request.method != "POST":
        if request.user.is_authenticated:
            return redirect(wanted_page(request))
        return render(request, TEMPLATE, {"next": request.GET.get("next", ""), **ways()})
    if not may_try(request, SignInThrottle(), SignInNameThrottle()):
        return refuse(request, 429, SLOW_DOWN)
    if not settings.R1_PASSWORD_SIGN_IN:
        return refuse(request, 403, NO_PASSWORDS)
    name, password = request.POST.get("username", ""), request.POST.get("password", "")
    user = authenticate(request, username=name, password=password)
    if user is None:
        return refuse(request, 400, "Name and password do not belong together, or the account is not active.")
    login(request, user)
    return redirect(wanted_page(request))


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """Shows one button; pressing it signs in. The link works once; looking at the page does not use it up."""
    if request.method != "POST":
        if not sign_in_link_is_open(token=token):
            return refuse(request, 400, SPENT)
        return render(request, TEMPLATE, {"token": token})
    if not may_try(request, SignInThrottle()):
        return refuse(request, 429, SLOW_DOWN)
    user = sign_in_link_use(token=token)
    if user is None:
        return refuse(request, 400, SPENT)
    login(request, user, backend=backend())
    return redirect("/")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Ends the session; its sockets close at their next check."""
    logout(request)
    return redirect("sign-in")


def may_try(request: HttpRequest, *throttles: SimpleRateThrottle) -> bool:
    """Counts an attempt; False when there were too many."""
    return all(throttle.allow_request(request, None) for throttle in throttles)  # type: ignore[arg-type]


def backend() -> str:
    """What vouches for a user who was not signed in by a password."""
    return str(settings.AUTHENTICATION_BACKENDS[0])


def ways() -> dict[str, Any]:
    """How one can sign in here, for the page."""
    return {"sso": settings.R1_OIDC, "has_passwords": settings.R1_PASSWORD_SIGN_IN}


def refuse(request: HttpRequest, status: int, sentence: str) -> HttpResponse:
    """The sign-in page with what is wrong above it."""
    context = {"error": sentence, "next": request.POST.get("next", ""), "username": request.POST.get("username", ""), **ways()}
    return render(request, TEMPLATE, context, status=status)


def wanted_page(request: HttpRequest) -> str:
    """`next` where it is a page of ours, else the overview."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return wanted if safe else "/"
