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

from model_core.errors import MachineError
from model_core.serving.protocol import LOOPBACK
from r1platform.lib.processes import ProcessRef, child_environment, spawn


@dataclass(frozen=True)
class Started:
    """An engine that was just started."""

    ref: ProcessRef
    base_url: str
    key: str


def start_engine(
    engine: Any, *, directory: Path, model_dir: Path, served_name: str, config: Any, host: str, devices: list[int] | None
) -> Started:
    """Starts the engine on a free port of `host` with a key of its own; its output goes to `engine.log`."""
    port, key = free_port(host), secrets.token_urlsafe(32)
    command = engine.command(
        model_dir=model_dir, port=port, served_name=served_name, api_key=key, config=config, host=host
    )
    environment = child_environment(os.environ, mark=directory) | dict(command.env)
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    directory.mkdir(parents=True, exist_ok=True)
    ref = spawn(command.argv, cwd=directory, env=environment, log=directory / "engine.log")
    return Started(ref, f"http://{f'[{host}]' if ':' in host else host}:{port}", key)


def bind_address(node_address: str) -> str:
    """The numeric address under which the web processes reach an engine of this node. Raises MachineError."""
    try:
        found = socket.getaddrinfo(node_address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise MachineError(
            f"The address “{node_address}” of this node cannot be found: {error}. Set R1_NODE_ADDRESS to one that other "
            "machines reach it by, and start the node again."
        ) from None
    old_before_new = sorted(found, key=lambda one: one[0] != socket.AF_INET)
    return str(old_before_new[0][4][0])


def free_port(host: str = LOOPBACK) -> int:
    """A port of the address that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def answers(base_url: str, key: str) -> bool:
    """Whether the engine's HTTP server answers at all."""
    try:
        response = httpx.get(
            f"{base_url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=5, trust_env=False
        )
    except httpx.HTTPError:
        return False
    return response.is_success
