"""Drops rows whose prompt or completion is too short or too long.

Source: the C4 and Gopher rules use such bounds too; ours count characters.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop
from model_core.registry import registered


@registered
class Length:
    """Bounds on characters."""

    reads_completion = True

    class Config(StrictModel):
        """Bounds."""

        min_prompt_chars: int = Field(1, ge=0)
        """Shortest prompt kept, in characters."""
        max_prompt_chars: int = Field(20_000, ge=1)
        """Longest prompt kept, in characters."""
        max_completion_chars: int = Field(100_000, ge=1)
        """Longest completion kept, in characters."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        prompt, completion = len(row["prompt"]), len(row["completion"] or "")
        if prompt < self.config.min_prompt_chars:
            return Drop("prompt too short", f"the prompt has {prompt} characters, fewer than {self.config.min_prompt_chars}")
        if prompt > self.config.max_prompt_chars:
            return Drop("prompt too long", f"the prompt has {prompt} characters, more than {self.config.max_prompt_chars}")
        if completion > self.config.max_completion_chars:
            most = self.config.max_completion_chars
            return Drop("completion too long", f"the completion has {completion} characters, more than {most}")
        return None
