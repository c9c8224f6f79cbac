"""`manage.py supervise_replica ID --fence N`: owns one engine process until it ends. Started by `serving_app.tasks`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from serving_app.supervisor import ReplicaSupervisor


class Command(BaseCommand):
    """Starts or adopts the engine of a replica and keeps its row true."""

    help = "Supervises the engine of one replica; the platform starts this itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("replica_id", type=int)
        parser.add_argument("--fence", type=int, required=True, help="The claim that this supervisor holds.")

    def handle(self, *args: Any, **options: Any) -> None:
        ReplicaSupervisor(options["replica_id"], fence=options["fence"]).run()
