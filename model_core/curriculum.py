"""Which prompts a step of reinforcement asks: begins with the easy levels and moves as the pass rate does.

A level is any integer that grows with difficulty (`Row.level`). Pure Python and JSON state: a resumed run goes on with
the same prompts. Source: none, ours; the idea is the curriculum of Kimi k1.5 (arXiv 2501.12599, section 2.3.4), to which
we add that it also goes back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any, Self

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.errors import CheckpointError, DataError


class CurriculumConfig(StrictModel):
    """When a curriculum moves and what it keeps of what is behind it."""

    pass_rate_low: float = Field(0.25, ge=0, lt=1)
    """Pass rate of a level below which the curriculum goes back to what is easier."""
    pass_rate_high: float = Field(0.75, gt=0, le=1)
    """Pass rate of the level in work from which on the next one is begun."""
    easier_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of the prompts that come from the easier levels, evenly, so that they are not forgotten."""
    num_to_judge: int = Field(64, ge=1, le=100_000)
    """Latest prompts of a level that its pass rate is the mean of; with fewer it is not judged."""

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.pass_rate_low >= self.pass_rate_high:
            raise ValueError(
                f"pass_rate_low is {self.pass_rate_low:g} and pass_rate_high {self.pass_rate_high:g}: a level would be left "
                "upwards and downwards at once; set the first below the second"
            )
        return self


class Curriculum:
    """Draws indices of rows by level. `choose` changes nothing; `update` learns how the prompts went.

    Every row of a level comes once before any of them comes again.
    """

    def __init__(self, levels: Sequence[int], *, seed: int, config: CurriculumConfig | None = None) -> None:
        """`levels` holds the level of each row. Raises DataError when there is no row."""
        if not levels:
            raise DataError("A curriculum needs at least one row, and there is none.", field="dataset")
        self.config, self.seed = config or CurriculumConfig(), seed
        self.levels = sorted(set(levels))
        self._level_of = tuple(levels)
        self._rows = {level: [row for row, its in enumerate(levels) if its == level] for level in self.levels}
        self._place = 0
        self._num_asked = dict.fromkeys(self.levels, 0)
        self._latest: dict[int, list[float]] = {level: [] for level in self.levels}

    @property
    def level(self) -> int:
        """The level in work: the hardest one that is asked."""
        return self.levels[self._place]

    def choose(self, step: int, num: int) -> list[int]:
        """Indices of `num` rows. The same state and step give the same ones, and fewer are the beginning of more.

        A row can be there twice only where its level begins a new pass over its rows.
        """
        draw = random.Random(f"{self.seed} {step}")
        phase, easier = draw.random(), self.config.easier_fraction if self._place else 0.0
        taken = dict(self._num_asked)
        chosen = []
        for slot in range(num):
            is_easier = math.floor((slot + 1) * easier + phase) > math.floor(slot * easier + phase)
            level = draw.choice(self.levels[: self._place]) if is_easier else self.level
            chosen.append(self._row(level, taken[level]))
            taken[level] += 1
        return chosen

    def update(self, indices: Sequence[int], pass_rates: Sequence[float | None]) -> None:
        """Notes the pass rate of each row that was asked, None where it is unscored, and moves if it is time to.

        Groups that taught nothing, all right or all wrong, belong in it: they say most about a level.
        """
        for index, rate in zip(indices, pass_rates, strict=True):
            level = self._level_of[index]
            self._num_asked[level] += 1
            if rate is not None:
                assert 0.0 <= rate <= 1.0
                self._latest[level] = [*self._latest[level], rate][-self.config.num_to_judge :]
        self._move()

    def pass_rates(self) -> dict[int, float | None]:
        """Mean of each level's latest prompts; None before the first scored one."""
        return {level: fmean(rates) if rates else None for level, rates in self._latest.items()}

    def state(self) -> dict[str, Any]:
        """What `load` needs, as JSON; the lists go by `levels`."""
        return {
            "levels": list(self.levels), "level": self.level, "num_asked": list(self._num_asked.values()),
            "latest": [list(rates) for rates in self._latest.values()],
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state`. Raises CheckpointError when it is of a dataset with other levels."""
        if state["levels"] != self.levels:
            raise CheckpointError(
                f"The checkpoint's curriculum has the levels {state['levels']}, the dataset {self.levels}. Resume with the "
                "dataset that the run began with.", field="dataset",
            )  # fmt: skip
        self._place = self.levels.index(state["level"])
        self._num_asked = dict(zip(self.levels, state["num_asked"], strict=True))
        self._latest = {
            level: list(rates)[-self.config.num_to_judge :] for level, rates in zip(self.levels, state["latest"], strict=True)
        }

    def _row(self, level: int, position: int) -> int:
        rows = self._rows[level]
        lap, place = divmod(position, len(rows))
        return rows[_order(len(rows), f"{self.seed} {level} {lap}")[place]]

    def _move(self) -> None:
        """To the first level that goes badly, or below the one in work when it is that; else up when it goes well."""
        for place in range(self._place + 1):
            rate = self._judged(place)
            if rate is not None and rate < self.config.pass_rate_low and self._place > 0:
                self._go_to(min(place, self._place - 1))
                return
        rate = self._judged(self._place)
        if rate is not None and rate >= self.config.pass_rate_high and self._place + 1 < len(self.levels):
            self._go_to(self._place + 1)

    def _judged(self, place: int) -> float | None:
        latest = self._latest[self.levels[place]]
        return fmean(latest) if len(latest) >= self.config.num_to_judge else None

    def _go_to(self, place: int) -> None:
        """Begins `place` anew: what was measured before the move says nothing about how it goes now."""
        for level in self.levels[place:]:
            self._latest[level] = []
        self._place = place


@lru_cache(maxsize=64)
def _order(num: int, seed: str) -> tuple[int, ...]:
    order = list(range(num))
    random.Random(seed).shuffle(order)
    return tuple(order)
