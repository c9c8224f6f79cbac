"""The platform's database and models in a home of their own, for benchmarks that need no running platform."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def platform() -> Iterator[Path]:
    """PostgreSQL and Redis run and the tables are there while the block runs; answers the home, which is then removed."""
    home = Path(tempfile.mkdtemp(prefix="r1-bench-"))
    os.environ["R1_HOME"] = str(home)
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "r1platform.settings")
    from r1platform.lib.embedded import SERVERS

    servers = [kind(home) for kind in SERVERS.values()]
    try:
        for server in servers:
            server.start()
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        yield home
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


def database_address(home: Path, name: str) -> str:
    """What another program calls a new database of the same server by."""
    import psycopg

    from r1platform.lib.embedded import Postgres

    host = Postgres(home).socket_dir
    with psycopg.connect(host=str(host), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg2://postgres@/{name}?host={host}"


def new_project() -> Any:
    """A project and its owner."""
    from django.contrib.auth.models import User

    from r1platform.services import project_create

    user = User.objects.create_user("owner", password="not used")
    return project_create(user=user, name="Bench"), user


def new_run(project: Any, user: Any, **values: Any) -> Any:
    """A cold start that has begun."""
    from model_core.config import RunConfig
    from training_app.models import PhaseRun

    config = RunConfig.parse({"phase": "cold_start"}).resolved()
    given = {"name": "bench", "phase": "cold_start", "config": config, "state": "running", **values}
    return PhaseRun.objects.create(project=project, created_by=user, **given)
