"""Rollouts that a run has stored, kept by a rule: demonstrations that a model wrote itself, with their pass rates.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.3, rejection sampling. What a line of the files holds is written by
`model_core.grpo.rollouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._limits import RowLimit
from model_core.sources.jsonl import objects
from model_core.thinking import with_opening

FILES = "*.jsonl.gz"


@registered
class Rollouts:
    """Completions of a run's `samples` folder, or of one file of it; finished rows that need no mapping."""

    is_file = True
    is_mapped = True

    class Config(RowLimit):
        """Which completions become rows."""

        keep: Literal["correct", "all"] = "correct"
        """Completions whose answer was right, or every one."""
        min_reward: float | None = Field(None)
        """Least total reward; empty: any. An unscored completion has none and is then left out."""
        finished_only: bool = True
        """Leaves out completions that were cut off at their length."""
        per_prompt: int = Field(1, ge=1)
        """Most completions kept of one stored group."""
        prefer: Literal["shortest", "best_reward", "first"] = "shortest"
        """Which of a group's completions are kept first."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
        """Yields finished rows; `meta` has reward, num_tokens, file and pass_rate, the group's share of right answers.

        Raises DataError when there are no rollouts at `path`.
        """
        return self.config.limited(self._rows(path, on_bad))

    def _rows(self, path: Path, on_bad: OnBad) -> Iterator[dict[str, Any]]:
        for file in _files(path):
            for number, group in enumerate(objects(file, on_bad), start=1):
                try:
                    _check(group)
                except (KeyError, TypeError) as error:
                    message = f"{file.name}, group {number}: this is no group of rollouts ({error})."
                    on_bad(BadRow(message, reason="not a group of rollouts", excerpt=group))
                else:
                    yield from self._kept(group, file.name)

    def _kept(self, group: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
        judged = [bool(one["correct"]) for one in group["completions"] if one.get("correct") is not None]
        pass_rate = sum(judged) / len(judged) if judged else None
        good: dict[str, dict[str, Any]] = {}
        for one in filter(self._is_good, group["completions"]):
            good.setdefault(one["text"], one)
        for one in sorted(good.values(), key=self._rank)[: self.config.per_prompt]:
            yield {
                "prompt": group["prompt"], "completion": with_opening(one["text"]), "answer": group.get("answer"),
                "task": group.get("task") or "",
                "meta": {"reward": one.get("reward"), "num_tokens": one.get("num_tokens"), "file": name, "pass_rate": pass_rate},
            }  # fmt: skip

    def _is_good(self, one: dict[str, Any]) -> bool:
        least = self.config.min_reward
        return (
            (self.config.keep == "all" or one.get("correct") is True)
            and (least is None or (one.get("reward") is not None and one["reward"] >= least))
            and not (self.config.finished_only and one.get("finish_reason") == "length")
        )

    def _rank(self, one: dict[str, Any]) -> tuple[float, int]:
        if self.config.prefer == "first":
            return 0.0, 0
        reward = -(one.get("reward") or 0.0) if self.config.prefer == "best_reward" else 0.0
        return reward, one.get("num_tokens") or len(one["text"])


def _files(path: Path) -> list[Path]:
    found = sorted(path.glob(FILES)) if path.is_dir() else [path]
    if not found or not all(file.is_file() for file in found):
        raise DataError(f"There are no rollouts at “{path.name}”: a run keeps them in its samples folder as {FILES}.", field="file")
    return found


def _check(group: dict[str, Any]) -> None:
    """Raises KeyError or TypeError where the group is not as it must be."""
    if not isinstance(group["prompt"], str) or not isinstance(group.get("answer"), str | None):
        raise TypeError("prompt and answer must be text")
    for one in group["completions"]:
        if not isinstance(one["text"], str):
            raise TypeError("a completion must have its text")
