"""What every engine can do: be started as a process, say when it is ready, tell its metrics. Imports without torch.

An engine is one file in `model_core/serving/engines` with one registered class. Its process listens on the address it
is given, the loopback one by default, speaks the OpenAI protocol under /v1, and takes its key from the environment,
never from its arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import httpx

from model_core.config import StrictModel
from model_core.planner.serving import Load, ServedModel
from model_core.published import Published

LOOPBACK = "127.0.0.1"
GIVES_UP = "This engine gives up for good: "
"""Begins the line that an engine prints when starting it again would not help, a damaged checkpoint for instance."""
EVENT_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|text)": ?"(?!")')
"""Text, thinking included, in an event of a stream that is not parsed. Inside a text its quotes would be escaped."""

METRICS: dict[str, str] = {
    "running": "requests that decode",
    "queued": "requests that wait",
    "ttft_seconds": "mean seconds from request to first token, lately",
    "inter_token_seconds": "mean seconds between tokens of a request, lately",
    "tokens_per_second": "tokens generated a second, lately",
    "kv_use": "share of the cache in use, 0 to 1",
    "cache_hit_rate": "share of prompt tokens found in the prefix cache, 0 to 1",
}
"""Names that `read_metrics` uses; None stands for what an engine does not report."""


@dataclass(frozen=True)
class Command:
    """How a process is started: arguments and what its environment has besides."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Readiness:
    """starting, loading, warming or ready, with a sentence; failed when it never will be."""

    phase: str
    detail: str = ""


class Engine(Protocol):
    """One serving engine."""

    title: ClassVar[str]
    stop_grace_seconds: ClassVar[float]
    Config: ClassVar[type[StrictModel]]

    def installed(self) -> str | None:
        """Why it cannot run here, as a sentence with the remedy; None when it can."""

    def refuses(self, model: Published) -> str | None:
        """Why it cannot serve an imported model, as a sentence; None when it can."""

    def load(self, model: ServedModel, config: Any, *, on_gpu: bool) -> Load:
        """What it does at once with these settings, for the planner of memory."""

    def command(
        self, *, model_dir: Path, port: int, served_name: str, api_key: str, config: Any, host: str = LOOPBACK
    ) -> Command:
        """How to serve `model_dir` as `served_name` on `port` of the address `host`."""

    def is_ready(self, base_url: str, api_key: str, served_name: str) -> Readiness:
        """Ready only after it has really generated a token."""

    def read_metrics(self, base_url: str) -> dict[str, Any]:
        """The names of METRICS; raises nothing, an engine that does not answer has none."""


def given_up(log: str) -> str:
    """The sentence with which an engine gave up for good, out of its output; empty when it did not."""
    found = [line for line in log.splitlines() if line.startswith(GIVES_UP)]
    return found[-1].removeprefix(GIVES_UP) if found else ""


def first_token(base_url: str, api_key: str, served_name: str, *, seconds: float = 30.0) -> Readiness:
    """Asks for one token: a server that answers health checks may still hang."""
    body = {"model": served_name, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1, "temperature": 0}
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        answer = httpx.post(f"{base_url}/v1/chat/completions", json=body, headers=headers, timeout=seconds, trust_env=False)
    except httpx.HTTPError as error:
        return Readiness("warming", f"The first token has not come: {type(error).__name__}.")
    if answer.is_success:
        return Readiness("ready")
    return Readiness("warming", f"The first token was refused with {answer.status_code}: {answer.text[:200]}")
