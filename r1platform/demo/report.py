"""The demo's result: the table that is printed and the JSON that `--json` writes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "deepspeed", "transformers", "django", "celery", "channels", "psycopg")


def phase_row(run: dict[str, Any]) -> dict[str, Any]:
    """What the JSON says of one run; null where the run did not get as far as measuring."""
    result = run["result"] or {}
    keys = ("accuracy", "accuracy_before", "quality", "quality_low", "num_problems", "seconds", "tokens", "device_seconds")
    row = {key: result.get(key) for key in keys}
    budget = run["budget_device_seconds"]
    return {
        "phase": run["phase"],
        **row,
        "quality_high": result.get("quality_high"),
        "threshold": run["gate_threshold"],
        "gate": run["gate_verdict"],
        "state": run["state"],
        "budget_used_fraction": row["device_seconds"] / budget if budget and row["device_seconds"] else None,
    }


def versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def show_phases(console: Console, rows: list[dict[str, Any]]) -> None:
    """Prints one line a phase."""
    table = Table(title="What each phase did, on held-out problems", title_justify="left")
    for heading in ("phase", "accuracy before", "after", "problems", "quality (95 %)", "gate", "time", "tokens", "budget used"):
        table.add_column(heading, justify="left" if heading in {"phase", "gate"} else "right")
    for row in rows:
        table.add_row(
            row["phase"],
            _share(row["accuracy_before"]),
            _share(row["accuracy"]),
            str(row["num_problems"] or "–"),
            _interval(row),
            f"{row['gate']} at {row['threshold']:.2f}" if row["threshold"] is not None else "no gate",
            f"{row['seconds']:.0f} s" if row["seconds"] is not None else "–",
            f"{row['tokens']:,}".replace(",", " ") if row["tokens"] is not None else "–",
            _share(row["budget_used_fraction"]),
        )
    console.print(table)


def show_chat(console: Console, chat: list[dict[str, Any]]) -> None:
    """Prints each question with what the deployed model answered."""
    table = Table(title="Asked through the gateway", title_justify="left")
    for heading in ("question", "answer", "expected", ""):
        table.add_column(heading)
    for item in chat:
        table.add_row(item["prompt"], item["answer"], item["expected"], "✓" if item["correct"] else "✗")
    console.print(table)
    console.print(f"{sum(item['correct'] for item in chat)} of {len(chat)} right.")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _interval(row: dict[str, Any]) -> str:
    if row["quality"] is None:
        return "–"
    return f"{row['quality']:.3f} ({row['quality_low']:.3f} – {row['quality_high']:.3f})"
