"""`./r1 check`: what must hold before a commit, without running the tests of behaviour."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.core.management.commands.check import Command as DjangoCheck

STEPS: dict[str, list[str]] = {
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "templates": ["djlint", "templates", "--lint", "--quiet"],
    "imports": ["lint-imports"],
    "migrations": ["python", "manage.py", "makemigrations", "--check", "--dry-run"],
    "contracts": ["python", "-m", "pytest", "tests/contracts", "-q", "-p", "no:cacheprovider"],
}


class Command(DjangoCheck):
    """Django's own check stays behind its options (`./r1 check --deploy`) and its callers."""

    help = "Runs ruff, mypy, djlint, import contracts, migrations and contract tests."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--only", choices=list(STEPS), help="run one step")

    def handle(self, *labels: Any, **options: Any) -> None:
        if labels or options["deploy"] or options["list_tags"] or options["tags"]:
            super().handle(*labels, **options)
            return
        failed = [name for name, argv in STEPS.items() if options["only"] in (None, name) and not self._step(name, argv)]
        if failed:
            self.stderr.write(f"Not clean: {', '.join(failed)}.")
            sys.exit(1)

    def _step(self, name: str, argv: list[str]) -> bool:
        """Runs one step; its output is shown only when it fails."""
        began = time.monotonic()
        program = [str(Path(sys.executable).parent / argv[0]), *argv[1:]]
        environment = os.environ | {"PYTHONPATH": str(settings.BASE_DIR)}
        done = subprocess.run(
            program, cwd=settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )
        self.stdout.write(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {name} ({time.monotonic() - began:.0f} s)")
        if done.returncode != 0:
            self.stdout.write(done.stdout)
        return done.returncode == 0
