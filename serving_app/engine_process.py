"""One engine process: how it is started, found again, asked for its health, and what it said last.

No database here; `supervisor` decides, this does.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from r1platform.lib.processes import ProcessRef, reference, spawn, stop_group

MARK = "R1_REPLICA_DIR"
"""Environment variable by which an engine is found whose pid was never written down."""
_SECRETS = ("DATABASE_URL", "REDIS_URL", "R1_SECRET_KEY", "DJANGO_SETTINGS_MODULE")
_LAST_LINES = 6
_LAST_CHARS = 900


@dataclass(frozen=True)
class Started:
    """An engine that was just started."""

    ref: ProcessRef
    base_url: str
    key: str


def start_engine(
    engine: Any, *, directory: Path, model_dir: Path, served_name: str, config: Any, devices: list[int] | None
) -> Started:
    """Starts the engine on a free loopback port with a key of its own; its output goes to `engine.log`."""
    port, key = free_port(), secrets.token_urlsafe(32)
    command = engine.command(model_dir=model_dir, port=port, served_name=served_name, api_key=key, config=config)
    environment = engine_environment(os.environ) | dict(command.env) | {MARK: str(directory)}
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    directory.mkdir(parents=True, exist_ok=True)
    ref = spawn(command.argv, cwd=directory, env=environment, log=directory / "engine.log")
    return Started(ref, f"http://127.0.0.1:{port}", key)


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine inherits: no address and no secret of the platform, and no way to a model hub."""
    kept = {name: value for name, value in environment.items() if name not in _SECRETS}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_unrecorded(directory: Path) -> int:
    """Ends engines of this directory whose supervisor died before it wrote down their pid; returns how many."""
    ended = 0
    for process in psutil.process_iter():
        try:
            found = process.environ().get(MARK) == str(directory) and os.getsid(process.pid) == process.pid
            if found:
                ended += stop_group(reference(process.pid), grace_seconds=5)
        except (psutil.Error, ProcessLookupError, OSError):
            continue
    return ended


def answers(base_url: str, key: str) -> bool:
    """Whether the engine's HTTP server answers at all."""
    try:
        response = httpx.get(f"{base_url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=5)
    except httpx.HTTPError:
        return False
    return response.is_success


def last_words(log: Path) -> str:
    """The last lines of a log as one sentence part; empty when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode(errors="replace").replace("\x00", "").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-_LAST_LINES:])[-_LAST_CHARS:]
