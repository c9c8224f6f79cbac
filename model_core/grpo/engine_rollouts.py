"""Rollouts of a step by an engine: it is given the policy, is looked at, and samples; all ranks ask the same one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from model_core.data.dataset import Row
from model_core.errors import ModelCoreError
from model_core.rollout.remote import RemoteEngine, key_of
from model_core.rollout.remote_weights import WeightSync
from model_core.training.frame import Frame

if TYPE_CHECKING:
    from model_core.phases.reinforcement import Reinforcement

EXPORTS = "engine_weights"
"""Folder of the run that the engine reads weights from; on another machine it has the same path there."""


class EngineRollouts:
    """The engine of a run. The first rank gives it the weights; what goes wrong, all ranks raise."""

    def __init__(self, frame: Frame, engine: RemoteEngine, weights: WeightSync | None) -> None:
        self._frame, self._engine, self._weights = frame, engine, weights

    @classmethod
    def of(
        cls, frame: Frame, settings: Reinforcement.Config, problems: Sequence[tuple[Row, list[int]]]
    ) -> EngineRollouts:
        """All ranks must call it. Raises ConfigError when the run may not use the engine, or nobody answers there."""
        url = settings.rollout_url.rstrip("/")
        engine = RemoteEngine(
            url, key_of(url, os.environ), num_requests=settings.rollout_requests, seconds=settings.rollout_seconds,
            stop_reason=frame.stop_reason,
        )
        made = cls(frame, engine, WeightSync(
            engine, frame.context.rundir.path / EXPORTS, canary=problems[0][1], tolerance=settings.max_canary_difference,
            tell=lambda sentence: frame.reporter.emit("fallback", message=sentence),
        ) if frame.world.is_first else None)
        made._together(engine.check)
        return made

    def sampler(self, step: int) -> RemoteEngine:
        """The engine with the policy's weights of this moment; all ranks must call it. Raises EngineError."""
        policy = self._frame.policy()
        weights = self._weights
        self._together(lambda: weights.sync(policy, self._frame.tokenizer, step) if weights else None)
        return self._engine

    def close(self) -> None:
        """Removes what was written for the engine."""
        if self._weights is not None:
            self._weights.close()

    def _together(self, work: Callable[[], None]) -> None:
        """Has the first rank work; raises what it raised, on all of them."""
        error: ModelCoreError | None = None
        if self._frame.world.is_first:
            try:
                work()
            except ModelCoreError as raised:
                error = raised
        told: ModelCoreError | None
        told, self._engine.version = self._frame.world.gather((error, self._engine.version))[0]
        if told is not None:
            raise told
