"""Generated problems of a task in model_core/tasks; the split is by construction.

Source: none, ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.tasks import TASKS


@registered
class Generated:
    """Rows of a task, seeded; already mapped and split."""

    is_file = False

    class Config(StrictModel):
        """Which task and how much of it."""

        task: str = "sums"
        """File name in model_core/tasks."""
        task_config: dict[str, Any] = Field(default_factory=dict)
        """The task's own settings."""
        num_train: int = Field(2000, ge=1, le=1_000_000)
        """Training rows."""
        num_held_out: int = Field(512, ge=1, le=100_000)
        """Held-out rows."""

        @classmethod
        def parse(cls, values: dict[str, Any], *, prefix: str = "") -> Self:
            config = super().parse(values, prefix=prefix)
            where = f"{prefix}." if prefix else ""
            task = TASKS.get(config.task, field=f"{where}task")
            resolved = task.Config.parse(config.task_config, prefix=f"{where}task_config").resolved()
            return config.model_copy(update={"task_config": resolved})

    def __init__(self, config: Config) -> None:
        self.config = config

    def split_rows(self, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields ("train" | "held_out", row)."""
        task = TASKS.get(self.config.task)
        generator = task(task.Config.parse(self.config.task_config))
        yield from generator.generate(seed, self.config.num_train, self.config.num_held_out)

    def rows(self, path: Path | None) -> Iterator[dict[str, Any]]:
        """Not used: the split comes with the rows."""
        raise NotImplementedError
