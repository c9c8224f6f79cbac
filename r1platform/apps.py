"""The Django app of the plumbing."""

from __future__ import annotations

from django.apps import AppConfig

from r1platform.celery import app as celery_app

__all__ = ["R1PlatformConfig", "celery_app"]


class R1PlatformConfig(AppConfig):
    """Brings the Celery app along: tasks that are queued anywhere in Django go through it."""

    name = "r1platform"
    verbose_name = "Platform"
