"""One engine process: how it is started, found again, asked for its health, and what it said last.

No database here; `supervisor` decides, this does.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from r1platform.lib.processes import ProcessRef, child_environment, spawn


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
    environment = child_environment(os.environ, mark=directory) | dict(command.env)
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    directory.mkdir(parents=True, exist_ok=True)
    ref = spawn(command.argv, cwd=directory, env=environment, log=directory / "engine.log")
    return Started(ref, f"http://127.0.0.1:{port}", key)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(base_url: str, key: str) -> bool:
    """Whether the engine's HTTP server answers at all."""
    try:
        response = httpx.get(f"{base_url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=5)
    except httpx.HTTPError:
        return False
    return response.is_success
