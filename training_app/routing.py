"""Paths of the sockets of training."""

from __future__ import annotations

from django.urls import path

from training_app.consumers import OverviewConsumer, RunConsumer

websocket_urlpatterns = [
    path("ws/runs/<int:run_id>/", RunConsumer.as_asgi()),
    path("ws/overview/", OverviewConsumer.as_asgi()),
]
