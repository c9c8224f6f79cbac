"""`./r1 demo`: the main job, for real, on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from r1platform.demo import story
from r1platform.demo.client import Api, DemoError
from r1platform.demo.stack import Stack


class Command(BaseCommand):
    help = "Runs the main job: dataset, pipeline, deployment, 20 questions; leaves the platform up on the result."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--exit", action="store_true", help="end the platform afterwards")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE")
        parser.add_argument("--seed", type=int, default=0, help="seed of data, weights and sampling")
        parser.add_argument("--engine", default="builtin", help="serving engine: builtin or sglang")
        parser.add_argument("--control", action="store_true", help="spend the RL budget on supervised steps too")
        parser.add_argument("--port", type=int, default=0, help="port of the web; 0 takes a free one")

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console(width=None if sys.stdout.isatty() else 132)
        wishes = story.Wishes(seed=options["seed"], engine=options["engine"], control=options["control"])
        stack = Stack(port=options["port"])
        try:
            ready = stack.start()
            console.print(f"The platform is up. Look on: {ready['url']}")
            api = Api(ready["base_url"], ready["sign_in_path"])
            result = story.tell(api, wishes, console)
            if options["json"]:
                options["json"].write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            console.print(f"Done in {result['seconds']:.0f} s.")
            if not options["exit"]:
                console.print(f"It stays up: {ready['base_url']}. Ctrl-C ends it.")
                stack.wait()
        except DemoError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Ended by Ctrl-C.") from None
        finally:
            stack.stop()
