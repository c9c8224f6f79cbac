"""Celery: starts and reconciles, never owns a run. A node's worker consumes "platform" and the queue named after it."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "r1platform.settings")
app = Celery("r1platform")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
