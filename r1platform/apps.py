"""The Django app of the plumbing."""

from __future__ import annotations

from django.apps import AppConfig


class R1PlatformConfig(AppConfig):
    name = "r1platform"
    verbose_name = "Platform"
