"""`manage.py supervise_preparation ID`: owns the preparation of one dataset version. Started by the platform."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from training_app.preparation import PreparationSupervisor


class Command(BaseCommand):
    """Prepares a version and writes how it ended."""

    help = "Supervises the preparation of one dataset version; the platform starts this itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version_id", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        PreparationSupervisor(options["version_id"]).run()
