"""The embedded servers: start, are found again, survive stale files, end without a trace."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psycopg
import pytest
import redis

from r1platform.lib import embedded, processes
from r1platform.lib.embedded import EmbeddedError, EmbeddedServer, Postgres, Redis
from r1platform.lib.home import redis_socket, secret_key, socket_dir
from r1platform.lib.processes import group_pids, is_alive


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("h")
    yield folder
    for server in (Redis(folder), Postgres(folder)):
        server.stop(seconds=5)


def count_tables(home: Path) -> int:
    with psycopg.connect(host=str(socket_dir(home, "postgres")), user="postgres", dbname="r1") as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'").fetchone()
        assert found is not None
        return int(found[0])


def test_postgres_starts_is_adopted_and_survives_a_kill(home: Path) -> None:
    server = Postgres(home, durable=False)
    first = server.start()
    assert Postgres(home).start() == first, "a second start finds the running server"
    with psycopg.connect(host=str(socket_dir(home, "postgres")), user="postgres", dbname="r1", autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        connection.execute("CHECKPOINT")
    os.kill(first.pid, signal.SIGKILL)
    second = server.start()
    assert second != first and count_tables(home) == 1
    assert server.stop() and group_pids(second) == [] and server.running() is None
    assert not (home / "postgres.json").exists()
    assert server.start() and count_tables(home) == 1


def test_redis_starts_and_ends(home: Path) -> None:
    server = Redis(home)
    ref = server.start()
    assert redis.Redis(unix_socket_path=str(redis_socket(home))).ping()
    assert redis_socket(home).stat().st_mode & 0o077 == 0, "only we may open it"
    assert server.stop() and not is_alive(ref)


def test_a_stale_lock_is_no_server(home: Path) -> None:
    """After a crash of the machine the file names a process of another boot; its pid may be anybody's."""
    server = Redis(home)
    stale = processes.ProcessRef(os.getpid(), 1.0, "another boot")
    (home / "redis.json").write_text(json.dumps(asdict(stale)))
    assert server.running() is None
    ref = server.start()
    assert is_alive(ref) and is_alive(processes.this_process())


def test_an_unreadable_lock_is_no_server(home: Path) -> None:
    (home / "redis.json").write_text("{")
    assert Redis(home).start()


def test_a_full_disk_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(EmbeddedError, match="MiB left"):
        Redis(home).start()


def test_a_server_that_ends_at_once_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server: EmbeddedServer = Redis(home)
    monkeypatch.setattr(server, "argv", lambda: ["/bin/sh", "-c", "echo no luck; exit 3"])
    with pytest.raises(EmbeddedError, match="ended at once: no luck"):
        server.start()
    assert server.running() is None


def test_the_secret_key_is_made_once(tmp_path: Path) -> None:
    key = secret_key(tmp_path / "new")
    assert len(key) > 50 and secret_key(tmp_path / "new") == key
    assert (tmp_path / "new" / "secret_key").stat().st_mode & 0o077 == 0


def test_a_long_home_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    assert len(str(socket_dir(deep, "postgres"))) < 90
    assert socket_dir(deep, "postgres") != socket_dir(deep, "redis")
    assert socket_dir(Path("/data"), "redis") == Path("/data/redis")
