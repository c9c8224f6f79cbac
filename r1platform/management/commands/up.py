"""`./r1 up`: the platform on this machine until Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from r1platform.lib.embedded import EmbeddedError
from r1platform.up.children import say
from r1platform.up.claims import UpError
from r1platform.up.stack import ROLES, Stack


class Command(BaseCommand):
    help = "Runs the platform: web, a worker that is this node, beat, and PostgreSQL and Redis unless they are set."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on; see R1_ALLOWED_HOSTS for names")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--only", choices=ROLES, action="append", help="run only this part; may be repeated")

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, lambda *_: stopping.set())
        roles = tuple(role for role in ROLES if role in (options["only"] or ROLES))
        stack = Stack(host=options["host"], port=options["port"], roles=roles, out=say)
        began = time.monotonic()
        try:
            stack.start()
        except (UpError, EmbeddedError) as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(_unwritable(error, stack)) from None
        finally:
            if not stack.started:
                stack.stop_failed_start()
        try:
            self._run(stack, stopping, time.monotonic() - began)
        finally:
            self._end(stack)

    def _run(self, stack: Stack, stopping: threading.Event, seconds: float) -> None:
        """Says where it is and watches it until it is to end."""
        say("up", f"The platform is ready after {seconds:.1f} s. All state is in {stack.home}.")
        if "web" in stack.roles:
            say("up", f"Open {stack.base_url}{stack.links['person']} to sign in as admin; the link works once.")
        say("up", "Ctrl-C ends it in order.")
        if not stopping.is_set():
            try:
                stack.watch(stopping)
            except OSError as error:
                raise CommandError(_unwritable(error, stack)) from None

    def _end(self, stack: Stack) -> None:
        say("up", "Ending: running attempts write a checkpoint and go on with the next up.")
        signal.signal(signal.SIGINT, lambda *_: say("up", "Still ending; a moment."))
        if not stack.stop():
            raise CommandError("Some processes could not be ended; `ps` shows them, the next up tries again.")
        say("up", "Everything has ended.")


def _unwritable(error: OSError, stack: Stack) -> str:
    where = error.filename or stack.home
    return f"{where} cannot be used ({error.strerror}); free space there, or set R1_HOME to a directory that you can write."
