"""`./r1 api GET /runs/ state=running`: the REST API from a shell, through `r1platform.client`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from r1platform.client import Client, PlatformError
from r1platform.lib.home import base_url

METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")
EPILOG = """\
Values: name=text is a text, name:=JSON anything else, name=@FILE the text of a file. A GET puts them into the query,
the others send them as JSON. R1_API_KEY holds the key (Settings, API keys). The platform is that of --url, else of R1_URL, else
the one that runs in R1_HOME.

  ./r1 api GET runs/ state=running fields=id,name,progress --all
  ./r1 api POST runs/12/stop/
  ./r1 api PATCH runs/12/ tags:='["baseline"]' notes=@notes.md
"""


class Command(BaseCommand):
    help = "Calls the REST API and prints its JSON; what is refused is one sentence on the error output, exit code 1."
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("method", type=str.upper, choices=METHODS)
        parser.add_argument("path", help="below /api/v1/, such as runs/12/")
        parser.add_argument("values", nargs="*", metavar="NAME=VALUE")
        parser.add_argument("--url", default="", help="the platform; by default R1_URL, else what runs in R1_HOME")
        parser.add_argument("--all", action="store_true", help="every page of a list, one row a line")
        parser.add_argument("--limit", type=int, metavar="N", help="with --all: at most so many rows")

    def handle(self, *args: Any, **options: Any) -> None:
        values = dict(parsed(text) for text in options["values"])
        path, method = options["path"], options["method"]
        if options["all"] and method != "GET":
            raise CommandError("--all follows the pages of a list; it goes with GET only.")
        try:
            with Client(options["url"] or _address()) as client:
                if options["all"]:
                    for row in islice(client.pages(path, **values), options["limit"]):
                        self.stdout.write(json.dumps(row, ensure_ascii=False))
                    return
                answer = client.call(method, path, **({"params": values} if method == "GET" else {"json": values}))
        except PlatformError as error:
            raise CommandError(str(error)) from None
        except (KeyError, TypeError):
            raise CommandError(f"{path} is not a list with pages; leave --all out.") from None
        if answer is not None:
            self.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def _address() -> str:
    """Raises CommandError when nothing says where the platform is."""
    home = Path(settings.R1_HOME)
    if found := os.environ.get("R1_URL", "") or base_url(home):
        return found
    raise CommandError(
        f"No platform runs in {home}: there is no up.json. Start it with ./r1 up, set R1_HOME to the home of the one that runs, or "
        "name it: --url http://HOST:PORT, or R1_URL."
    )


def parsed(text: str) -> tuple[str, Any]:
    """Name and value of one argument. Raises CommandError."""
    name, mark, value = text.partition("=")
    if not mark or not name.rstrip(":"):
        raise CommandError(f"“{text[:80]}” is not of the form name=text, name:=JSON or name=@FILE.")
    if name.endswith(":"):
        try:
            return name[:-1], json.loads(value)
        except ValueError as error:
            raise CommandError(f"The value of {name[:-1]} is not JSON: {error}. A text is given as {name[:-1]}=TEXT.") from None
    if value.startswith("@"):
        try:
            return name, Path(value[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{value[1:]} cannot be read as text: {error}") from None
    return name, value
