"""Every URL: our sign-in and health, the API, the admin, then what the apps add."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import include, path

from r1platform import api, health, oidc_views, views
from r1platform.rooms import modules

admin.site.site_header = "R1 Platform"


def app_urls(name: str) -> list[Any]:
    return [path("", include(module.__name__)) for module in modules(name, having="urlpatterns")]


urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-in/oidc/", oidc_views.start, name="oidc-start"),
    path("sign-in/oidc/callback/", oidc_views.callback, name="oidc-callback"),
    path("sign-in/oidc/connect/", oidc_views.connect, name="oidc-connect"),
    path("sign-in/oidc/disconnect/", oidc_views.disconnect, name="oidc-disconnect"),
    path("sign-in/<str:token>/", views.sign_in_link, name="sign-in-link"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("api/v1/", include(api.urls())),
    path("admin/", admin.site.urls),
    *app_urls("gateway_urls"),
    *app_urls("page_urls"),
    *app_urls("urls"),
]
handler400 = "r1platform.problems.bad_request"
handler403 = "r1platform.problems.forbidden"
handler404 = "r1platform.problems.not_found"
handler500 = "r1platform.problems.server_error"
