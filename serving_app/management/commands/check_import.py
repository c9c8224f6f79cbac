"""`manage.py check_import ID --fence N`: hashes one imported model. Started by the platform."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from serving_app.importing import ImportCheck


class Command(BaseCommand):
    """Hashes the files and writes what was found."""

    help = "Hashes the files of one imported model; the platform starts this itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("import_id", type=int)
        parser.add_argument("--fence", type=int, required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        ImportCheck(options["import_id"], fence=options["fence"]).run()
