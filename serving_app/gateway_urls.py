"""Paths of the OpenAI-compatible gateway; what is not named here never reaches an engine."""

from __future__ import annotations

from django.urls import path

from serving_app.gateway import views

urlpatterns = [
    path("v1/models", views.models, name="gateway-models"),
    path("v1/models/<str:name>", views.model, name="gateway-model"),
    path("v1/chat/completions", views.chat_completions, name="gateway-chat"),
    path("v1/completions", views.completions, name="gateway-completions"),
    path("v1/<path:path>", views.unknown, name="gateway-unknown"),
]
