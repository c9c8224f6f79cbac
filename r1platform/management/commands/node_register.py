"""`./r1 node_register`: writes down this machine; a worker does it by itself when it starts."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from r1platform.nodes import node_register


class Command(BaseCommand):
    help = "Registers this machine as a node with its devices."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", default="")
        parser.add_argument("--address", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        node = node_register(name=options["name"], address=options["address"])
        self.stdout.write(f"{node.name}: {', '.join(str(device) for device in node.devices.all())}")
