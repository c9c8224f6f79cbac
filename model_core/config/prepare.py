"""What a dataset version is made of: one source, a field mapping, a funnel of filters, a split."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from model_core.config.base import StrictModel
from model_core.errors import ConfigError


class MappingConfig(StrictModel):
    """Which fields of a row are what. Generated tasks need none."""

    prompt: str = "prompt"
    """Field with the question."""
    messages: str = ""
    """Field with a chat, a list of {"role", "content"}: its last answer is the completion, what was said before it the prompt."""
    completion: str = ""
    """Field with the whole demonstration; empty: the rows have none."""
    reasoning: str = ""
    """Field with the reasoning; it is put in front of the completion, or of the answer, between `<think>` and `</think>`."""
    answer: str = ""
    """Field with the expected answer; empty: found in the completion by `answer_pattern`, else none is known."""
    answer_pattern: str = ""
    r"""Regular expression whose first group is the answer inside the completion, e.g. `####\s*(.+)$` for GSM8K."""
    chosen: str = ""
    """Field with the preferred of two answers, for the phase `reward_model`: text, or a chat whose last answer it is. With chats
    the prompt is what was said before, in both alike; a chat that begins with the answer follows the field `prompt`."""
    rejected: str = ""
    """Field with the other answer, of the same form."""
    keep: list[str] = Field(default_factory=list)
    """Fields that are kept as they are in the row's `meta`, for example `pass_rate` for the filter on difficulty."""

    @field_validator("answer_pattern")
    @classmethod
    def _finds_an_answer(cls, value: str) -> str:
        try:
            num_groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"this is no regular expression ({error}); mend it") from error
        if value and not num_groups:
            raise ValueError("it has no group: put the part that is the answer in parentheses")
        return value

    @model_validator(mode="after")
    def _is_a_pair(self) -> Self:
        if bool(self.chosen) != bool(self.rejected):
            raise ValueError("chosen and rejected belong together: name the fields of both, or of neither")
        if self.chosen and self.chosen == self.rejected:
            raise ValueError(f"chosen and rejected are the same field, {self.chosen!r}; name two")
        if self.chosen and self.messages:
            raise ValueError("messages is a chat with one answer, chosen and rejected are two answers; name the one or the others")
        return self


class FilterStep(StrictModel):
    """One filter of the funnel."""

    name: str
    """File name in model_core/filters."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The filter's own settings."""


class PrepareConfig(StrictModel):
    """Preparation of one dataset version."""

    source: str
    """File name in model_core/sources, for example "generated", "jsonl", "csv" or "text"."""
    source_config: dict[str, Any] = Field(default_factory=dict)
    """The source's own settings."""
    mapping: MappingConfig = Field(default_factory=MappingConfig)
    """Field mapping."""
    filters: list[FilterStep] = Field(default_factory=list)
    """The funnel, in order."""
    on_bad_row: Literal["refuse", "skip"] = "refuse"
    """A row that cannot be used (its field is missing, it is not UTF-8, its quotes are broken …) ends the preparation, or is
    left out and counted with examples."""
    max_bad_rows: int | None = Field(None, ge=0)
    """Most rows that are left out so; one more ends the preparation. Empty: any number."""
    held_out_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of prompts set aside by a hash of the prompt; sources that split by construction ignore it."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of generation."""

    @classmethod
    def parse(cls, values: dict[str, Any], *, prefix: str = "") -> Self:
        """Validates and fills in the settings of the source and of each filter."""
        from model_core.filters import FILTERS
        from model_core.sources import SOURCES

        config = super().parse(values, prefix=prefix)
        where = f"{prefix}." if prefix else ""
        source = SOURCES.get(config.source, field=f"{where}source")
        source_config = source.Config.parse(config.source_config, prefix=f"{where}source_config")
        filters = [
            step.model_copy(
                update={"config": FILTERS.get(step.name, field=f"{where}filters.{i}.name").Config
                        .parse(step.config, prefix=f"{where}filters.{i}.config").resolved()}
            )
            for i, step in enumerate(config.filters)
        ]
        pairs, answer = config.mapping.chosen, config.mapping.answer or config.mapping.answer_pattern
        for i, step in enumerate(filters):
            if pairs and not answer and getattr(FILTERS.get(step.name), "needs_answer", False):
                message = f"{step.name} judges a row's expected answer, and these pairs of chosen and rejected have none: it would"
                raise ConfigError(f"{message} drop them all. Leave it out, or map the field `answer`.",
                                  field=f"{where}filters.{i}.name")  # fmt: skip
        return config.model_copy(update={"source_config": source_config.resolved(), "filters": filters})
