"""The engine of `engine_server`, as an engine of the registry; tests put this folder on the registry's path."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from model_core.config import StrictModel
from model_core.planner.serving import Load, ServedModel
from model_core.registry import registered

SERVER = Path(__file__).parent.parent / "engine_server.py"


@dataclass
class Command:
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Readiness:
    phase: str
    detail: str = ""


@registered
class Stub:
    """Does what the last message says."""

    title = "Stub"
    stop_grace_seconds = 0.5

    class Config(StrictModel):
        """How it misbehaves."""

        ready_after: float = 0.0
        """Seconds of loading."""
        crash: bool = False
        """Ends at once."""
        gives_up: bool = False
        """Says that it has failed, with a sentence that another start does not mend."""
        stubborn: bool = False
        """Does not hear SIGTERM."""

    def installed(self) -> str | None:
        return None

    def refuses(self, model: Any) -> str | None:
        return None

    def load(self, model: ServedModel, config: Any, *, on_gpu: bool) -> Load:
        return Load(number_bytes=0, rows=1, tokens=0)

    def command(
        self, *, model_dir: Path, port: int, served_name: str, api_key: str, config: Any, host: str
    ) -> Command:
        argv = [sys.executable, str(SERVER), "--host", host, "--port", str(port), "--name", served_name]
        argv += ["--ready-after", str(config.ready_after)]
        argv += ["--gives-up"] if config.gives_up else []
        argv += ["--crash"] if config.crash else []
        argv += ["--stubborn"] if config.stubborn else []
        return Command(argv, {"STUB_KEY": api_key})

    def is_ready(self, base_url: str, api_key: str, served_name: str) -> Readiness:
        body = {"model": served_name, "messages": [{"role": "user", "content": "say hello"}]}
        try:
            answer = httpx.post(
                f"{base_url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {api_key}"}, timeout=2
            )
        except httpx.HTTPError:
            return Readiness("starting", "Its server is not up yet.")
        if answer.status_code == 500:
            return Readiness("failed", "It is broken.")
        if answer.status_code == 503:
            return Readiness("loading", "3 of 7 tensors are loaded.")
        return Readiness("ready") if answer.is_success else Readiness("warming", answer.text)

    def read_metrics(self, base_url: str) -> dict[str, Any]:
        try:
            return dict(httpx.get(f"{base_url}/metrics", timeout=5).json())
        except httpx.HTTPError:
            return {}
