"""A dataset, and its preparation by the real process, for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from r1platform.models import Node, Project
from training_app import preparation, services
from training_app.models import Dataset, DatasetVersion
from training_app.preparation import PreparationSupervisor, preparations_reconcile, preparations_start


@pytest.fixture
def dataset(project: Project, alice: User) -> Dataset:
    return services.dataset_create(project=project, user=alice, name="Sums", kind="self")


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, node: Node, settings: Any) -> Callable[[], None]:
    """Starts what is queued with its supervisors in threads, and waits."""
    settings.R1_NODE_NAME = node.name
    monkeypatch.setattr(preparation, "POLL_SECONDS", 0.02)
    threads: list[threading.Thread] = []

    def spawn(version: DatasetVersion) -> None:
        def work() -> None:
            PreparationSupervisor(version.pk).run()
            connection.close()

        threads.append(threading.Thread(target=work))

    monkeypatch.setattr(preparation, "_spawn_supervisor", spawn)

    def go() -> None:
        preparations_start()
        preparations_reconcile()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        threads.clear()

    return go
