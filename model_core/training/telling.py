"""What a trainer tells, as lines for people who read its log; programs read events.jsonl."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

STEP_SECONDS = 1.0
"""Steps are told at most this often."""
SHOWN = (("loss", "loss", ".4f"), ("reward/total", "reward", ".3f"), ("perf/tok_s", "tokens/s", ",.0f"))
"""Metric, its word in the log, and its format."""


class Teller:
    """Writes the events that say something to a person, each as one line, through `write`."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._total = 0
        self._told_at = float("-inf")

    def tell(self, kind: str, payload: dict[str, Any]) -> None:
        """One event of `model_core.events.KINDS`; those that say nothing new are left out."""
        if kind == "progress":
            self._total = payload["total"]
        line = self._step(payload) if kind == "scalars" else _line(kind, payload)
        if line:
            self._write(line)

    def _step(self, payload: dict[str, Any]) -> str:
        values = payload["values"]
        if "perf/step_s" not in values or time.monotonic() - self._told_at < STEP_SECONDS:
            return ""
        self._told_at = time.monotonic()
        shown = [
            f"{label} {value:{form}}"
            for name, label, form in SHOWN
            if isinstance(value := values.get(name), int | float)
        ]
        total = f" of {self._total}" if self._total else ""
        return f"step {payload['step']}{total}: {', '.join(shown)}"


def _line(kind: str, payload: dict[str, Any]) -> str:
    """The event in words; empty for what only programs need."""
    match kind:
        case "started":
            return (
                f"{payload['phase']} on {payload['num_processes']} process(es), {payload['device']}: "
                f"{payload['num_parameters']:,} parameters, {payload['num_active_parameters']:,} active"
            )
        case "stage":
            return f"{payload['stage']} at step {payload['step']}" if payload["stage"] in {"loading", "measuring"} else ""
        case "evaluation":
            return (
                f"held-out problems, {payload['when']}: accuracy {_share(payload['accuracy'])} of {payload['num_problems']}, "
                f"quality {_share(payload['quality'])}"
            )
        case "benchmark":
            return f"{payload['name']}: accuracy {_share(payload['accuracy'])} of {payload['num_problems']} problems"
        case "checkpoint":
            return f"checkpoint of step {payload['step']}: {payload['path']}, {payload['size_bytes'] / 1e6:.1f} MB"
        case "warning" | "fallback":
            return f"{kind}: {payload['message']}"
        case "error":
            return f"error: {payload['type']}: {payload['message']}"
        case "stopping":
            return f"stopping at step {payload['step']}: {payload['reason']}"
    return ""


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
