"""A deployment with a checkpoint on disk, an engine that is a real server, and the platform's web as one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.utils import timezone

import model_core.serving.engines
from model_core.config import ModelConfig
from model_core.rundir import COMPLETE
from r1platform.keys import api_key_create
from r1platform.lib.storage import run_dir
from r1platform.models import Node, Project
from r1platform.up.stack import KEEP_ALIVE_SECONDS
from serving_app import generation, placement, services, supervisor
from serving_app.background import release_connections
from serving_app.gateway.auth import forget_callers
from serving_app.gateway.proxying import close_client
from serving_app.gateway.routing import TABLE
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, DeploymentRevision, Replica
from serving_app.placement import reconcile_deployment
from serving_app.states import REPLICA_ENDS
from serving_app.supervisor import ReplicaSupervisor
from tests.serving_app.engine_server import Engine
from training_app.models import Checkpoint, PhaseRun, RunAttempt

STUBS = Path(__file__).parent / "stub_engines"
ENGINE_KEY = "engine-key-not-a-users"
DAMAGED = {**ModelConfig(vocab_size=64).resolved(), "model_type": "deepseek_v3", "rope_scaling": None}
"""config.json of a whole model, beside weights that are none."""


def until(condition: Callable[[], Any], *, seconds: float = 15.0) -> Any:
    """What `condition` returns once it is true. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return found


class Served:
    """An ASGI application on a real port, in a thread."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app, log_level="error", lifespan="off", timeout_graceful_shutdown=2, timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ws="websockets-sansio",
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    async def _serve(self) -> None:
        await self.server.serve(sockets=[self.socket])
        await close_client()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)
        self.socket.close()


@pytest.fixture(scope="session", autouse=True)
def stub_engine() -> Iterator[None]:
    """Makes the engine “stub” known."""
    path = model_core.serving.engines.__path__
    path.append(str(STUBS))
    yield
    path.remove(str(STUBS))


@pytest.fixture(scope="session", autouse=True)
def threads_let_go(django_db_setup: None) -> Iterator[None]:
    """Closes the connections of the database threads before the database is dropped."""
    yield
    until(lambda: USAGE._thread is None or not USAGE._thread.is_alive())
    generation.release()
    release_connections()


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins with empty caches and leaves no usage behind; it is written when the test asks for it.

    The thread that writes it otherwise outlives a test, and the database of the next one is another.
    """
    monkeypatch.setattr(USAGE, "_start", lambda: None)
    TABLE.__init__()  # type: ignore[misc]
    forget_callers()
    yield
    USAGE._waiting.clear()
    USAGE._running.clear()


@pytest.fixture
def checkpoint(project: Project, node: Node) -> Checkpoint:
    """A complete checkpoint of `project` with files on disk."""
    run = PhaseRun.objects.create(project=project, name="cold-start", phase="cold_start", config={})
    attempt = RunAttempt.objects.create(run=run, number=1, node=node)
    made = Checkpoint.objects.create(run=run, attempt=attempt, step=12)
    directory = run_dir(run.pk, 1) / "checkpoints" / "step_00000012"
    (directory / "model").mkdir(parents=True, exist_ok=True)
    (directory / "model" / "config.json").write_text(json.dumps(DAMAGED))
    (directory / "model" / "model.safetensors").write_bytes(b"weights")
    (directory / COMPLETE).touch()
    return made


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A running engine; `engine.url` is where."""
    made = Engine(key=ENGINE_KEY, name="sums")
    served = Served(made.app())
    made.url = served.url  # type: ignore[attr-defined]
    yield made
    served.stop()


def deploy(
    project: Project, checkpoint: Checkpoint, *, name: str = "sums", urls: tuple[str, ...] = (), **fields: Any
) -> Deployment:
    """A deployment as rows, with a ready replica for each url."""
    state = fields.pop("state", "ready" if urls else "pending")
    made = Deployment.objects.create(project=project, name=name, state=state, desired_replicas=len(urls) or 1, **fields)
    revision = DeploymentRevision.objects.create(
        deployment=made, number=1, checkpoint=checkpoint, engine="stub", engine_config={}
    )
    for number, url in enumerate(urls, 1):
        Replica.objects.create(
            revision=revision, number=number, state="ready", base_url=url, engine_key=ENGINE_KEY,
            ready_at=timezone.now(), heartbeat_at=timezone.now(), node=checkpoint.attempt.node,
        )  # fmt: skip
    made.refresh_from_db()
    return made


@pytest.fixture
def deployment(project: Project, checkpoint: Checkpoint, engine: Engine) -> Deployment:
    """“sums”, ready on `engine`."""
    return deploy(project, checkpoint, urls=(engine.url,))  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def web(django_db_setup: None) -> Iterator[Served]:
    """The platform as a real server."""
    from r1platform.asgi import application

    served = Served(application)
    yield served
    served.stop()


def key_of(user: User, **options: Any) -> str:
    """An API key of `user` that may use models."""
    return api_key_create(user=user, name="test", **{"scopes": ("read", "write", "inference"), **options})[1]


class Worker:
    """What the Celery worker of the node does with `tasks.supervise`, with threads for processes."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def supervise(self, replica_id: int, fence: int, *, node_name: str) -> None:
        thread = threading.Thread(target=self._run, args=(replica_id, fence), daemon=True)
        self.threads.append(thread)
        transaction.on_commit(thread.start)

    def _run(self, replica_id: int, fence: int) -> None:
        try:
            ReplicaSupervisor(replica_id, fence=fence).run()
        finally:
            connections.close_all()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    made = Worker()
    monkeypatch.setattr(placement, "ask_to_supervise", made.supervise)
    monkeypatch.setattr(placement, "BACKOFF_SECONDS", (0,))
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "SEEN_SECONDS", 0.1)
    yield made
    Deployment.objects.exclude(state="asleep").update(desired_replicas=0)
    Replica.objects.exclude(state__in=REPLICA_ENDS).update(stop_wanted=True)
    for thread in made.threads:
        thread.join(timeout=15)
    assert not any(thread.is_alive() for thread in made.threads)


@pytest.fixture
def create(project: Project, alice: User, checkpoint: Checkpoint, worker: Worker) -> Callable[..., Deployment]:
    def made(**options: Any) -> Deployment:
        return services.deployment_create(
            project=project, user=alice, **{"name": "sums", "checkpoint": checkpoint, "engine": "stub", **options}
        )

    return made


def reconciled(deployment: Deployment, state: str, *, seconds: float = 15) -> Deployment:
    """Reconciles until the deployment is in `state`."""

    def there() -> bool:
        reconcile_deployment(deployment.pk)
        deployment.refresh_from_db()
        return deployment.state == state

    until(there, seconds=seconds)
    return deployment


def replicas(deployment: Deployment) -> list[Replica]:
    return list(Replica.objects.filter(revision__deployment=deployment).order_by("id"))
