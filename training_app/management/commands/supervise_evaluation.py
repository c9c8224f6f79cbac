"""`manage.py supervise_evaluation ID`: owns one evaluation. Started by the platform."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from training_app.evaluation_supervisor import EvaluationSupervisor


class Command(BaseCommand):
    """Asks a benchmark and writes how it ended."""

    help = "Supervises one evaluation; the platform starts this itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("evaluation_id", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        EvaluationSupervisor(options["evaluation_id"]).run()
