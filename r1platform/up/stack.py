"""Brings everything up in order, watches it, and takes it down in order with nothing left behind."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import httpx
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import Error as DatabaseTrouble
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from model_core.rundir import write_json
from r1platform import nodes, services
from r1platform.lib import processes
from r1platform.lib.embedded import EmbeddedError, EmbeddedServer, Postgres, Redis
from r1platform.up.children import Child, Say
from r1platform.up.claims import Claims, UpError, ready_file

READY_SECONDS = 90.0
ROLES = ("web", "worker", "beat")
KEEP_ALIVE_SECONDS = 75
"""How long the web keeps a connection on which nothing is said: longer than clients (httpx 5, aiohttp 15) and proxies (nginx 60)
do, so that none of them sends a request on one that is just being closed here, and has it reset."""
ROOT_WARNING = "You're running the worker with superuser privileges"
"""Celery's advice, kept out of the console: a container often has no other user, and tasks here are JSON with ids only."""


class Stack:
    """The processes of one R1_HOME. `roles` is a part of ROLES on machines that do only a part."""

    def __init__(self, *, host: str, port: int, roles: tuple[str, ...] = ROLES, out: Say) -> None:
        self.home, self.node = Path(settings.R1_HOME), str(settings.R1_NODE_NAME)
        self.host, self.port, self.roles, self.out = host, port, roles, out
        self.ready_file = ready_file(self.home, node=self.node, roles=roles, all_roles=ROLES)
        self.servers = _servers(self.home)
        self._claims = Claims(self.home, node=self.node, roles=roles, whole_home=bool(self.servers))
        self._started_servers: list[EmbeddedServer] = []
        self.children = [child for child in self._all_children() if child.name in roles]
        self.links: dict[str, str] = {}
        self.started = False

    @property
    def base_url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Starts all and returns when the web and the worker are ready. Raises UpError, EmbeddedError or OSError."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._claims.take()
        self._end_orphans()
        if "web" in self.roles:
            _require_port(self.host, self.port)
        if "worker" in self.roles:
            nodes.ending_mark().unlink(missing_ok=True)
            nodes.ready_mark().unlink(missing_ok=True)
        self._started_servers = self.servers
        start_servers(self.servers)
        _require_database()
        if "web" in self.roles:
            self.links = _prepare_database()
        connection.close()
        for child in self.children:
            child.start()
        self._write(ready=False)
        self._wait_ready()
        self._write(ready=True)
        self.started = True

    def watch(self, stopping: threading.Event) -> None:
        """Shows output and starts again what dies, until `stopping` is set."""
        unwritten = False
        while not stopping.wait(0.2):
            changed = [child.name for child in self.children if child.watch(self.out)]
            for server in self.servers:
                if server.running() is None:
                    self.out("up", f"{server.name} ended unasked; it is started again.")
                    try:
                        server.start()
                    except EmbeddedError as error:
                        self.out("up", f"{error}")
            if changed or unwritten:
                unwritten = not self._write_if_it_fits(quietly=unwritten)

    def stop(self) -> bool:
        """Asks the running attempts to checkpoint, then ends worker, web and servers; says whether nothing is left.

        Beat goes first: a queued attempt must not be started again while the machine goes down.
        """
        by_name = {child.name: child for child in self.children}
        gone = by_name["beat"].stop() if "beat" in by_name else True
        if "worker" in by_name:
            self._leave()
        for name in ("worker", "web"):
            if name in by_name:
                by_name[name].show(self.out)
                gone = by_name[name].stop() and gone
        for child in self.children:
            child.show(self.out)
        connection.close()
        for server in reversed(self._started_servers):
            gone = server.stop() and gone
        if gone:
            self.ready_file.unlink(missing_ok=True)
        self._claims.release()
        return gone

    def stop_failed_start(self) -> None:
        """Takes down what a failed start has started; without its locks it touches nothing."""
        if not self._claims.held:
            return
        for child in self.children:
            child.show(self.out)
            child.stop()
        connection.close()
        for server in reversed(self._started_servers):
            server.stop()
        self.ready_file.unlink(missing_ok=True)
        self._claims.release()

    def _leave(self) -> None:
        """The node takes no more work, and each app brings what it runs here to a safe end."""
        try:
            nodes.node_leave()
            for config in apps.get_app_configs():
                hook = getattr(config, "on_node_shutdown", None)
                if hook is not None:
                    hook()
        except (DatabaseTrouble, OSError) as error:
            self.out("up", f"Running attempts could not be asked to end, so they go on and the next up finds them: {error}")

    def _end_orphans(self) -> None:
        """Ends web, worker and beat of an `up` that was killed; its servers are adopted when they start."""
        for path, children in self._claims.orphans():
            for name, ref in children.items():
                if not processes.group_pids(ref):
                    continue
                self.out("up", f"{name} of an earlier up still runs (pid {ref.pid}); it is ended.")
                if not processes.stop_group(ref, grace_seconds=5):
                    raise UpError(f"An earlier {name} (pid {ref.pid}) cannot be ended; end it and try again.")
            path.unlink(missing_ok=True)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        waiting = [child for child in self.children if child.name != "beat"]
        while waiting:
            for child in self.children:
                child.show(self.out)
                if child.ref is None or not processes.is_alive(child.ref):
                    raise UpError(f"{child.name} ended while it started; its log is {child.log}.")
            waiting = [child for child in waiting if not self._is_ready(child)]
            if time.monotonic() > deadline:
                names = " and ".join(child.name for child in waiting)
                raise UpError(f"{names} did not get ready within {READY_SECONDS:.0f} s; the logs are in {self.home / 'logs'}.")
            time.sleep(0.1)

    def _is_ready(self, child: Child) -> bool:
        if child.name == "worker":
            mark = nodes.ready_mark()
            return mark.exists() and child.ref is not None and mark.read_text() == str(child.ref.pid)
        try:
            return httpx.get(f"{self.base_url}/readyz", timeout=5, headers={"Host": _allowed_host()}).is_success
        except httpx.TransportError:
            return False

    def _write_if_it_fits(self, *, quietly: bool) -> bool:
        """Writes up.json again; a full disk ends nothing that runs, and is said once."""
        try:
            self._write(ready=True)
        except OSError as error:
            if not quietly:
                self.out("up", f"{self.ready_file} cannot be written ({error.strerror}); free space on its disk.")
            return False
        return True

    def _write(self, *, ready: bool) -> None:
        """up.json: for the demo, for tests, and for the next `up`. Only its owner reads it: it holds a sign-in link."""
        old = os.umask(0o077)
        try:
            write_json(
                self.ready_file,
                {
                    **asdict(processes.this_process()),
                    "ready": ready,
                    "node": self.node,
                    "base_url": self.base_url,
                    "url": self.base_url + self.links.get("person", "/"),
                    "sign_in_path": self.links.get("program", ""),
                    "children": {child.name: asdict(child.ref) for child in self.children if child.ref is not None},
                },
            )
        finally:
            os.umask(old)

    def _all_children(self) -> list[Child]:
        python = sys.executable
        celery = [python, "-W", f"ignore:{ROOT_WARNING}", "-m", "celery", "-A", "r1platform", "--quiet"]
        queues = f"platform,{settings.R1_NODE_NAME}"
        commands = {
            "web": ([python, "-m", "uvicorn", "r1platform.asgi:application", "--host", self.host, "--port", str(self.port),
                     "--no-access-log", "--log-level", "warning", "--lifespan", "off", "--timeout-graceful-shutdown", "3",
                     "--timeout-keep-alive", str(KEEP_ALIVE_SECONDS),
                     *([] if settings.R1_HTTPS else ["--no-proxy-headers"])], 8.0),
            "worker": ([*celery, "worker", "--pool", "threads", "--concurrency", "4", "--queues", queues, "--loglevel",
                        "warning", "--hostname", f"node@{settings.R1_NODE_NAME}", "--without-mingle", "--without-gossip"], 15.0),
            "beat": ([*celery, "beat", "--loglevel", "warning", "--pidfile", ""], 5.0),
        }  # fmt: skip
        return [
            Child(name, argv, home=self.home, cwd=Path(settings.BASE_DIR), grace_seconds=grace)
            for name, (argv, grace) in commands.items()
        ]


def _servers(home: Path) -> list[EmbeddedServer]:
    """The embedded servers that no environment variable replaces, PostgreSQL first."""
    found: list[EmbeddedServer] = []
    if not os.environ.get("DATABASE_URL"):
        found.append(Postgres(home))
    if not os.environ.get("REDIS_URL"):
        found.append(Redis(home))
    return found


def start_servers(servers: list[EmbeddedServer]) -> None:
    """Starts them side by side; raises the first EmbeddedError."""
    errors: list[EmbeddedError] = []

    def start(server: EmbeddedServer) -> None:
        try:
            server.start()
        except EmbeddedError as error:
            errors.append(error)
        except OSError as error:
            what = f"{error.filename or server.directory} cannot be written ({error.strerror})"
            errors.append(EmbeddedError(f"{server.name} cannot start: {what}; free space there, or set R1_HOME."))

    threads = [threading.Thread(target=start, args=[server]) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _require_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 1 <= port <= 65535:
        raise UpError(f"There is no port {port}; choose one from 1 to 65535 with --port.")
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UpError(f"Port {port} of {host} cannot be used ({error.strerror}); choose another with --port.") from None


def _require_database() -> None:
    try:
        connection.ensure_connection()
    except DatabaseTrouble as error:
        why = _first_line(error)
        raise UpError(f"The database of DATABASE_URL does not answer: {why}; start it, or correct the address.") from None


def _prepare_database() -> dict[str, str]:
    """Tables, the first administrator, and a link that signs a person in and one for programs."""
    try:
        _require_whole_history()
        call_command("migrate", verbosity=0, interactive=False)
        admin = services.admin_ensure()
        return {key: services.sign_in_link_create(user=admin) for key in ("person", "program")}
    except DatabaseTrouble as error:
        why = _first_line(error)
        raise UpError(f"The database cannot be prepared: {why}; see that its disk has room and its user may.") from None


def _require_whole_history() -> None:
    """Refuses tables that have some of the steps which a migration replaces: it can then neither run nor be left out."""
    loader = MigrationLoader(connection)
    applied = MigrationRecorder(connection).applied_migrations()
    for (app, _name), migration in loader.disk_migrations.items():
        missing = [name for key, name in migration.replaces if (key, name) not in applied]
        if missing and len(missing) < len(migration.replaces):
            raise UpError(
                f"The tables were made by an older platform and lack {app}.{missing[0]}; run `./r1 up` of the version before "
                "this one once in this home, or choose another R1_HOME."
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _allowed_host() -> str:
    """A host name that ALLOWED_HOSTS lets through, for our own question."""
    first = settings.ALLOWED_HOSTS[0] if settings.ALLOWED_HOSTS else "localhost"
    return "localhost" if first == "*" else str(first).lstrip(".")
