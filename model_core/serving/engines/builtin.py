"""Our own engine, in its own process: the model of `model_core.model` with continuous batching over the latent cache, and the dense
students of distillation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import httpx
from pydantic import Field

from model_core.config import StrictModel
from model_core.planner.serving import Load, ServedModel
from model_core.published import Published
from model_core.published.families import ARCHITECTURES, DENSE
from model_core.published.marks import CHAT_TEMPLATE, SPECIAL
from model_core.registry import registered
from model_core.serving.protocol import LOOPBACK, Command, Readiness, first_token


@registered
class Builtin:
    """Starts in seconds, on a CPU or a GPU; made for small models."""

    title: ClassVar[str] = "Built in"
    stop_grace_seconds: ClassVar[float] = 8.0

    class Config(StrictModel):
        """Settings of the engine."""

        max_running_requests: int = Field(16, ge=1, le=1024)
        """Requests that decode together; the others wait."""
        num_threads: int = Field(1, ge=1, le=256)
        """Threads of each operator on a CPU; more than one pays only for large models on idle cores."""

    def installed(self) -> str | None:
        """It is part of the project."""
        return None

    def refuses(self, model: Published) -> str | None:
        """Of other classes it has no code, and it writes conversations by the template of tokenizers that are made here."""
        if model.model_type not in (*ARCHITECTURES, *DENSE):
            known = ", ".join((*ARCHITECTURES, *DENSE))
            return f"The built-in engine reads {known}, not {model.model_type}. Choose SGLang."
        if model.template != CHAT_TEMPLATE or not set(SPECIAL) <= model.added_tokens:
            return "The built-in engine knows only the chat template of models that are made here. Choose SGLang."
        return None

    def load(self, model: ServedModel, config: Any, *, on_gpu: bool) -> Load:
        """All in float32, on one device; the cache grows with what runs."""
        return Load(number_bytes=4, rows=config.max_running_requests, tokens=model.context)

    def command(
        self, *, model_dir: Path, port: int, served_name: str, api_key: str, config: Any, host: str = LOOPBACK
    ) -> Command:
        """`python -m model_core serve`."""
        root = str(Path(__file__).resolve().parents[3])
        argv = [
            sys.executable, "-m", "model_core", "serve", str(model_dir), "--host", host, "--port", str(port),
            f"--served-name={served_name}",
            "--max-running-requests", str(config.max_running_requests), "--num-threads", str(config.num_threads),
        ]  # fmt: skip
        env = {"R1_ENGINE_KEY": api_key, "PYTHONPATH": root, "OMP_NUM_THREADS": str(config.num_threads)}
        return Command(argv, env)

    def is_ready(self, base_url: str, api_key: str, served_name: str) -> Readiness:
        """Its own word on loading, then a real token."""
        try:
            answer = httpx.get(f"{base_url}/health", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return Readiness("starting", "Its server is not up yet.")
        if answer.status_code != httpx.codes.OK:
            phase = "failed" if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR else "loading"
            return Readiness(phase, _detail(answer))
        return first_token(base_url, api_key, served_name)

    def read_metrics(self, base_url: str) -> dict[str, Any]:
        """As its server tells them."""
        try:
            return dict(httpx.get(f"{base_url}/metrics", timeout=5, trust_env=False).json())
        except (httpx.HTTPError, ValueError):
            return {}


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail", ""))
    except ValueError:
        return f"Its server answers {answer.status_code}."
