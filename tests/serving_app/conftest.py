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
from django.utils import timezone

import model_core.serving.engines
from model_core.config import ModelConfig
from model_core.rundir import COMPLETE
from r1platform.keys import api_key_create
from r1platform.lib.storage import run_dir
from r1platform.models import Node, Project
from serving_app import generation
from serving_app.background import release_connections
from serving_app.gateway.auth import forget_callers
from serving_app.gateway.proxying import close_client
from serving_app.gateway.routing import TABLE
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, DeploymentRevision, Replica
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
            app, log_level="error", lifespan="off", timeout_graceful_shutdown=2, ws="websockets-sansio"
        )
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
