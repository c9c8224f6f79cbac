"""What every test may ask for: a real PostgreSQL, a real Redis on demand, people with roles, signed-in clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.contenttypes.management import create_contenttypes
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.functions import Now
from django.db.models.signals import post_migrate
from django.test import Client
from rest_framework.test import APIClient

from r1platform.keys import SCOPES, api_key_create
from r1platform.lib.embedded import Postgres, Redis
from r1platform.models import Device, DeviceKind, Membership, Node, Project, Role
from r1platform.services import project_create
from tests.browser import shared
from tests.home import HOME

django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""Slow hashing is the point of the real one; here it is only slow."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The shared browser ends with the last test that asks for it."""
    shared.close_unless_wanted(nextitem)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Starts PostgreSQL the first time a test of this run wants the database."""
    if not os.environ.get("DATABASE_URL"):
        Postgres(HOME, durable=False).start()
        DatabaseOperations.sql_flush = _emptied


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """Kinds of rows and permissions are made once: `_emptied` leaves them, so nothing need make them after every test."""
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.disconnect(create_contenttypes)


def _emptied(
    _operations: Any, _style: Any, tables: list[str], *, reset_sequences: bool = False, allow_cascade: bool = False
) -> list[str]:
    """How tables are emptied behind a test that commits: a TRUNCATE makes every file of every table anew, for the few rows there are."""
    assert not reset_sequences
    deletes = [f'DELETE FROM "{table}";' for table in tables if table not in {"django_content_type", "auth_permission"}]
    return ["SET session_replication_role = replica;", *deletes, "SET session_replication_role = DEFAULT;"] if tables else []


@pytest.fixture
def redis_url(settings: Any) -> Iterator[str]:
    """A real Redis; live messages go through it for the time of the test."""
    server = Redis(HOME)
    server.start()
    from r1platform.lib.home import redis_socket

    url = f"unix://{redis_socket(HOME)}"
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [url]}}
    }
    yield url


@pytest.fixture
def alice(db: None) -> User:
    """Owner of `project`."""
    return User.objects.create_user("alice", password="correct horse battery")


@pytest.fixture
def project(alice: User) -> Project:
    return project_create(user=alice, name="Sums")


@pytest.fixture
def bob(project: Project) -> User:
    """Viewer of `project`."""
    user = User.objects.create_user("bob", password="correct horse battery")
    Membership.objects.create(project=project, user=user, role=Role.VIEWER)
    return user


@pytest.fixture
def erin(project: Project) -> User:
    """Editor of `project`."""
    user = User.objects.create_user("erin", password="correct horse battery")
    Membership.objects.create(project=project, user=user, role=Role.EDITOR)
    return user


@pytest.fixture
def charlie(db: None) -> User:
    """A stranger, owner of a project of his own."""
    user = User.objects.create_user("charlie", password="correct horse battery")
    project_create(user=user, name="Elsewhere")
    return user


@pytest.fixture
def node(db: None) -> Node:
    """A node that is up, with two CPU devices."""
    made = Node.objects.create(name="node-1", heartbeat_at=Now(), hardware={"num_cpus": 2})
    for index in range(2):
        Device.objects.create(node=made, kind=DeviceKind.CPU, index=index, name="CPU share", memory_bytes=8 << 30)
    made.refresh_from_db()
    return made


def _client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def _api(user: User, scopes: tuple[str, ...] = SCOPES) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {api_key_create(user=user, name='test', scopes=scopes)[1]}")
    return client


@pytest.fixture
def client_alice(alice: User, project: Project) -> Client:
    return _client(alice)


@pytest.fixture
def client_bob(bob: User) -> Client:
    return _client(bob)


@pytest.fixture
def client_erin(erin: User) -> Client:
    return _client(erin)


@pytest.fixture
def client_charlie(charlie: User) -> Client:
    return _client(charlie)


@pytest.fixture
def api_alice(alice: User, project: Project) -> APIClient:
    return _api(alice)


@pytest.fixture
def api_bob(bob: User) -> APIClient:
    return _api(bob)


@pytest.fixture
def api_erin(erin: User) -> APIClient:
    return _api(erin)


@pytest.fixture
def api_charlie(charlie: User) -> APIClient:
    return _api(charlie)


@pytest.fixture
def api_anonymous(db: None) -> APIClient:
    return APIClient()
