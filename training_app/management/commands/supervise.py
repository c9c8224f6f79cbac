"""`manage.py supervise ID --fence N`: owns one trainer until it ends. Started by `training_app.tasks`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from training_app.supervisor import AttemptSupervisor


class Command(BaseCommand):
    """Starts or adopts the trainer of an attempt, brings in its events and says how it ended."""

    help = "Supervises one attempt of a run; the platform starts this itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("attempt_id", type=int)
        parser.add_argument("--fence", type=int, required=True, help="The claim that this supervisor holds.")

    def handle(self, *args: Any, **options: Any) -> None:
        AttemptSupervisor(options["attempt_id"], fence=options["fence"]).run()
