"""`./r1 demo`: the main job, for real, on this machine."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from model_core.serving.engines import ENGINES
from r1platform.client import Client, PlatformError
from r1platform.demo import story
from r1platform.demo.stack import Stack

MAX_SEED = 2**31 - 1


class Command(BaseCommand):
    help = "Runs the main job: dataset, pipeline, deployment, 20 questions; leaves the platform up on the result."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--exit", action="store_true", help="end the platform afterwards, if the demo started it")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE")
        parser.add_argument("--seed", type=int, default=0, help="seed of data, weights and sampling")
        parser.add_argument("--recipe", default="article", choices=("article", "r1"), help="the article's pipeline, or the paper's")
        parser.add_argument("--engine", default="builtin", help="serving engine: builtin or sglang")
        parser.add_argument("--control", action="store_true", help="spend the RL budget on supervised steps too")
        parser.add_argument("--port", type=int, default=0, help="port of the web; 0 takes a free one")

    def handle(self, *args: Any, **options: Any) -> None:
        _check(options)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        console = Console(width=None if sys.stdout.isatty() else 132)
        stack = Stack(port=options["port"])
        try:
            failure = self._run(stack, options, console)
        except PlatformError as error:
            raise CommandError(str(error)) from None
        except story.Interrupted as stopped:
            raise CommandError(_find_again(stack, stopped.page)) from None
        except KeyboardInterrupt:
            raise CommandError("Ended by Ctrl-C.") from None
        finally:
            stack.stop()
        if failure:
            raise CommandError(failure)

    def _run(self, stack: Stack, options: dict[str, Any], console: Console) -> str:
        """The whole demo on a platform that is up; returns why it failed, after a person could look at it."""
        ready = stack.start()
        console.print(f"The platform is up. Look on: {ready['url']}")
        failure = ""
        try:
            self._tell(ready, options, console)
        except PlatformError as error:
            failure = str(error)
        if stack.is_ours and not options["exit"]:
            console.print(*filter(None, [failure, f"It stays up: {ready['base_url']}. Ctrl-C ends it."]), markup=False)
            stack.wait()
        return failure

    def _tell(self, ready: dict[str, Any], options: dict[str, Any], console: Console) -> None:
        wishes = story.Wishes(**{name: options[name] for name in ("seed", "engine", "control", "recipe")})
        with closing(Client.by_link(ready["base_url"], ready["sign_in_path"])) as api:
            result = story.tell(api, wishes, console)
        if options["json"]:
            options["json"].write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        console.print(f"Done in {result['seconds']:.0f} s.")


def _check(options: dict[str, Any]) -> None:
    """Refuses at once what would fail minutes later. Raises CommandError."""
    if not 0 <= options["seed"] <= MAX_SEED:
        raise CommandError(f"--seed is {options['seed']}; it is a whole number from 0 to {MAX_SEED}.")
    if not 0 <= options["port"] <= 65535:
        raise CommandError(f"--port is {options['port']}; it is a number from 1 to 65535, or 0 for a free one.")
    engine = options["engine"]
    if engine not in ENGINES.names():
        raise CommandError(f"There is no engine “{engine}”; choose one with --engine: {', '.join(ENGINES.names())}.")
    if why := ENGINES.get(engine)().installed():
        raise CommandError(f"The engine {engine} cannot be used here: {why}")
    if (file := options["json"]) is not None:
        _require_writable(file)


def _require_writable(file: Path) -> None:
    there_before = file.exists()
    try:
        file.open("a").close()
    except OSError as error:
        raise CommandError(f"--json {file} cannot be written ({error.strerror}); name a file in a directory that exists.") from None
    if not there_before:
        file.unlink()


def _find_again(stack: Stack, page: str) -> str:
    if stack.is_ours:
        return f"Ended by Ctrl-C. The launch goes on from its last checkpoint with ./r1 up; its page is {page}"
    return f"Ended by Ctrl-C. The launch goes on; its page is {page}"
