"""`./r1 bench [NAME]`: runs one figure of `benchmarks/`, or all of them one after another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Runs a benchmark; each measures a peer in the same run and writes benchmarks/results/NAME.json."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?")
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args: Any, **options: Any) -> None:
        root = Path(settings.BASE_DIR)
        names = sorted(path.stem for path in (root / "benchmarks").glob("*.py") if not path.name.startswith("_"))
        wanted = [options["name"]] if options["name"] else names
        if not set(wanted) <= set(names):
            raise CommandError(f"There is no benchmark “{wanted[0]}”. There are: {', '.join(names) or 'none'}.")
        failed = [
            name
            for name in wanted
            if subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *options["arguments"]], cwd=root) != 0
        ]
        if failed:
            raise CommandError(f"These did not end well: {', '.join(failed)}.")
