"""`manage.py run_benchmark ID`: makes the load of one benchmark of a deployment. Started by the platform."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from serving_app.benchmark_runner import BenchmarkRunner


class Command(BaseCommand):
    """Asks the engines of a revision and writes down what was measured."""

    help = "Runs one benchmark of a deployment; the platform starts this itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("benchmark_id", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        BenchmarkRunner(options["benchmark_id"]).run()
