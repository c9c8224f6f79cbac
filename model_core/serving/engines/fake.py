"""An engine without a model that repeats what it was told: for tests and for looking at the platform without weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from model_core.config import StrictModel
from model_core.planner.serving import Load, ServedModel
from model_core.published import Published
from model_core.registry import registered
from model_core.serving.engines.builtin import Builtin
from model_core.serving.protocol import LOOPBACK, Command, Readiness


@registered
class Fake:
    """Repeats the last message; its answers come from no model."""

    title: ClassVar[str] = "Echo, no model"
    stop_grace_seconds: ClassVar[float] = 2.0

    class Config(StrictModel):
        """How slow it is."""

        pause: float = Field(0.02, ge=0, le=10)
        """Seconds between two words."""

    def installed(self) -> str | None:
        """It needs nothing."""
        return None

    def refuses(self, model: Published) -> str | None:
        """It reads none."""
        return None

    def load(self, model: ServedModel, config: Any, *, on_gpu: bool) -> Load:
        """It holds nothing."""
        return Load(number_bytes=0, rows=1, tokens=0)

    def command(
        self, *, model_dir: Path, port: int, served_name: str, api_key: str, config: Any, host: str = LOOPBACK
    ) -> Command:
        """The same server over an echo; `model_dir` is not read."""
        argv = [
            sys.executable, "-m", "model_core", "serve", "fake", "--host", host, "--port", str(port),
            f"--served-name={served_name}", "--pause", str(config.pause),
        ]  # fmt: skip
        return Command(argv, {"R1_ENGINE_KEY": api_key, "PYTHONPATH": str(Path(__file__).resolve().parents[3])})

    def is_ready(self, base_url: str, api_key: str, served_name: str) -> Readiness:
        """As the built-in engine."""
        return Builtin().is_ready(base_url, api_key, served_name)

    def read_metrics(self, base_url: str) -> dict[str, Any]:
        """As the built-in engine."""
        return Builtin().read_metrics(base_url)
