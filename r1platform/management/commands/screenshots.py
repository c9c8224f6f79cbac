"""`./r1 screenshots`: pictures of every page in light, dark and phone width, of a platform that has done real work."""

from __future__ import annotations

import argparse
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from r1platform.client import Client, PlatformError
from r1platform.demo import pictures, story
from r1platform.demo.pages import PAGES
from r1platform.demo.stack import Stack
from r1platform.management.commands.test import BROWSERS


class Command(BaseCommand):
    help = "Photographs every page; uses the platform that runs here or starts one, and does the demo first where none was."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        out = Path(settings.BASE_DIR) / "docs" / "screenshots"
        parser.add_argument("names", nargs="*", metavar="PAGE", help=f"only these pages: {', '.join(PAGES)}")
        parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="where the pictures go")

    def handle(self, *args: Any, **options: Any) -> None:
        if unknown := set(options["names"]) - PAGES.keys():
            raise CommandError(f"There is no page “{min(unknown)}”. There are: {', '.join(PAGES)}.")
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        if program is None:
            raise CommandError("Chromium is missing; install it with: apt-get install chromium")
        stack = Stack(port=0)
        try:
            self._take(stack, program, options["names"], options["out"])
        except PlatformError as error:
            raise CommandError(str(error)) from None
        finally:
            stack.stop()

    def _take(self, stack: Stack, program: str, names: list[str], out: Path) -> None:
        ready, console = stack.start(), Console()
        with closing(Client.by_link(ready["base_url"], ready["sign_in_path"])) as api:
            if not pictures.is_something_deployed(api):
                story.tell(api, story.Wishes(), console)
            ids = pictures.ids_of(api)
        with pictures.browser_at(program) as browser:
            for file in pictures.take(browser, ready["base_url"], ready["url"], ids, out, names):
                self.stdout.write(f"{file} ({file.stat().st_size / 1000:.0f} kB)")
