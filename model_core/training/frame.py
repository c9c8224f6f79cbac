"""The loop that every training phase runs in: measuring, steps, events, checkpoints, ends.

A phase gives `run` one function that makes a step. Everything that phases have in common is here: when to measure and
to save, what is told, how a run ends (steps, budget, gate, stop) and how an attempt goes on where an earlier one was stopped.
How a checkpoint is written is in `saving`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_core.config import RunConfig, RunPaths
from model_core.config.gate import LOSS
from model_core.data.dataset import Row, read_rows
from model_core.detectors import Watch
from model_core.errors import ConfigError
from model_core.gates import Streak
from model_core.grpo.rollouts import Group
from model_core.grpo.storing import store
from model_core.model import Transformer
from model_core.rollout import Sampler
from model_core.rundir import RunDir
from model_core.scoring import Rubric
from model_core.training.balance import ExpertBalance, WithBalance, load_event, load_metrics
from model_core.training.benchmarking import GateBenchmark, measure_of
from model_core.training.budget import Spent, burn, fraction_left, used_up
from model_core.training.checkpoints import read_metadata
from model_core.training.engine import TrainingEngine, UpdateReport
from model_core.training.failures import NonFiniteGradient, NonFiniteLoss
from model_core.training.families import Model, family_of
from model_core.training.held_out_loss import demonstrations, held_out_loss
from model_core.training.measuring import measure
from model_core.training.peak import take_peak_bytes
from model_core.training.reporter import Reporter, versions
from model_core.training.reward_models import RewardStart
from model_core.training.saving import Counters, Saver, read_trainer
from model_core.training.schedule import rate_factor
from model_core.training.settings import OptimizationConfig
from model_core.training.signals import StopSignals
from model_core.training.start import Start
from model_core.training.state import check_optimizer
from model_core.training.stored import StoredState
from model_core.training.students import StudentStart
from model_core.training.weights import is_whole, whole_state
from model_core.training.world import World


@dataclass(frozen=True)
class Context:
    """What surrounds a phase: where it writes, where its inputs lie, who works with it."""

    rundir: RunDir
    paths: RunPaths
    world: World
    reporter: Reporter
    signals: StopSignals | None = None


@dataclass(frozen=True)
class Ending:
    """What the first rank decided at a step boundary: why the run ends ("" when it goes on), whether to save by the clock."""

    by: str
    reason: str
    is_time_to_save: bool


@dataclass(frozen=True)
class Outcome:
    """What one step did. `values` are the same on all ranks; `loss_share` is this rank's part of the loss."""

    num_tokens: int
    loss_share: float
    values: dict[str, float | None] = field(default_factory=dict)


WATCHED = "detectors.json"
"""File in a checkpoint's `state/` with what the detectors have seen and said."""
MAX_SKIPPED = {"float32": 5, "bfloat16": 5, "float16": 20}
"""Updates in a row that may be skipped for a gradient that is not finite; float16 looks for its scale that way."""


Measure = Callable[[int], dict[str, Any] | None]
"""Measures on at most so many held-out problems: the payload of an `evaluation` event without step and when, None without any."""


class Frame:
    """One training phase on its way from the first measurement to result.json."""

    def __init__(
        self, config: RunConfig, settings: OptimizationConfig, context: Context, start: Start | StudentStart | RewardStart
    ) -> None:
        self.config, self.settings, self.context = config, settings, context
        self.world, self.reporter = context.world, context.reporter
        self.tokenizer, self.model_config = start.tokenizer, start.model_config
        self._family = family_of(start.model_config)
        num_total, num_active = self._family.count(start.model_config)
        self.engine = TrainingEngine(start.model.to(self.world.device), config, settings, self.world)
        self.balance = ExpertBalance(
            self.engine.module, self.world, wants_loss=settings.aux_loss_alpha > 0, num_alike=config.parallel.tensor
        )
        self.rubric = Rubric(config.reward)
        self.counters = Counters()
        self._held_out = self._read_held_out()
        self._loads = torch.zeros(0, 0)
        self._copy: Model | None = None
        self.extra_state: dict[str, str | bytes] = {}
        """Files that a phase wants back when it is resumed, by name in the checkpoint's `state/`."""
        self._train_seconds = 0.0
        self._last_tick = 0.0
        self._num_skipped = 0
        self._hacks = Watch()
        self._asked_to_end = ""
        self._measure_otherwise: Measure | None = None
        self._streak = Streak(config.gate)
        self._passed_early = ""
        self._benchmark = GateBenchmark.of(config, context.paths)
        self._at_first = (0, self._spent())
        self._measured: dict[str, Any] | None = None
        self._saver = Saver(context.rundir, config, self.engine, start.model_config, start.tokenizer, self.reporter, self.world)
        self.reporter.emit(
            "started", phase=config.phase, num_processes=self.world.size, device=self.world.device.type,
            num_parameters=num_total, num_active_parameters=num_active, versions=versions(),
        )
        self._tell_fallbacks()
        if context.paths.resume_from:
            self._resume(Path(context.paths.resume_from))

    def run(self, one_step: Callable[[int], Outcome | None], *, measure: Measure | None = None) -> dict[str, Any]:
        """Makes the steps that are left and returns the content of result.json. A model that answers nothing is measured by
        `measure`, which is given how many held-out problems at most. A step that gives None was given up and is not counted; it
        has asked for the end."""
        self._measure_otherwise = measure
        counters, total = self.counters, self.settings.steps
        ending = self._ending()
        if not ending.by and counters.step == 0 and counters.before is None:
            counters.before = self.measure("before")
            ending = self._ending()
        first, began = counters.step, time.monotonic()
        self._at_first = (first, self._spent())
        with self._saver:
            while not ending.by and counters.step < total:
                self._step(one_step)
                self.reporter.progress(
                    "updating", counters.step, total, seconds=time.monotonic() - began, began_at=first / total
                )
                ending = self._ending()
                is_last = bool(ending.by) or counters.step >= total
                if not is_last:
                    self._measure_and_save_when_due(is_time=ending.is_time_to_save)
                    if self._passed_early:  # all ranks measured the same
                        ending = Ending("gate", f"{self._passed_early} {self._left()}", is_time_to_save=False)
        return self._finish(ending.by or "steps", ending.reason)

    def update(
        self, losses: Sequence[Callable[[nn.Module], Tensor]], *, step: int, num_sequences: int
    ) -> UpdateReport:
        """One optimizer step and one move of the routing bias; see `TrainingEngine.update`.

        With `aux_loss_alpha` the mean balance loss of the `num_sequences` of all ranks is added; the report's loss is
        without it. Raises NonFiniteGradient when too many in a row changed nothing.
        """
        began, settings = time.monotonic(), self.settings
        balanced = []
        if settings.aux_loss_alpha:
            balanced = [WithBalance(one, self.balance, settings.aux_loss_alpha / num_sequences) for one in losses]
            losses = balanced
        report = self.engine.update(losses, rate_factor=rate_factor(
            step, total=settings.steps, warmup=settings.warmup_steps, constant_fraction=settings.constant_fraction,
            final_fraction=settings.final_lr_fraction,
        ))
        if balanced:
            report = self._without_balance(report, sum(one.value for one in balanced))
        loads = self.balance.take_loads()
        self._watch(report, step + 1)
        if settings.router_bias_speed and loads.numel() and not report.is_skipped:
            self.balance.move(loads, settings.router_bias_speed)
        self._loads = loads if self._loads.shape != loads.shape else self._loads + loads
        self._train_seconds += time.monotonic() - began
        return report

    def _without_balance(self, report: UpdateReport, added: float) -> UpdateReport:
        share = self.engine.share
        total = sum(self.world.gather(added if share.is_teller else 0.0)) / self.settings.aux_loss_alpha
        return replace(report, loss=report.loss - added, values={**report.values, "moe/balance_loss": total})

    def sampler(self) -> Sampler:
        """A sampler on the current weights; all ranks must call it."""
        return self._family.sampler(self.whole(), self.tokenizer)

    def policy(self) -> Transformer:
        """The current model of ours with all its weights: the trained module itself, or a copy that has them together."""
        model = self.whole()
        assert isinstance(model, Transformer), "a student is sampled and supervised, and no policy"
        return model

    def whole(self) -> Model:
        """The current model of any family with all its weights; all ranks must call it."""
        module = self.engine.module
        if is_whole(module):
            return module
        if self._copy is None:
            self._copy = self._family.build(self.model_config).to(self.world.device)
        self._copy.load_state_dict(whole_state(module))
        return self._copy

    def keep_rollouts(self, step: int, groups: Sequence[Group]) -> None:
        """Writes the step's rollouts to `samples/` and tells of them."""
        path = self.context.rundir.samples / f"step_{step:08d}.jsonl.gz"
        num_stored = store(path, groups, seed=step) if self.world.is_first else 0
        self.reporter.emit("rollouts", step=step, file=f"samples/{path.name}", num_groups=len(groups),
                           num_rollouts=sum(len(group.rollouts) for group in groups), num_stored_groups=num_stored)

    def ask_to_end(self, reason: str) -> None:
        """Ends the run at the next boundary with a checkpoint, as a stop does; the first rank's word counts."""
        self._asked_to_end = reason

    def stop_reason(self) -> str:
        """Why this rank thinks that the run is asked to stop, for whoever waits within a step; empty while it is not."""
        by, reason = self._why_end()
        return reason if by == "stop" else ""

    def wants_to_end(self, *, save_when_due: bool = False) -> bool:
        """Whether a stop was asked for or the budget is used up; all ranks must call it.

        Between the parts of something long before the first step it also saves, when the clock asks for it.
        """
        ending = self._ending()
        if save_when_due and ending.is_time_to_save and not ending.by:
            self.save()
        return bool(ending.by)

    def measure(self, when: str) -> dict[str, Any] | None:
        """Answers held-out problems and tells the result; None when there are none."""
        held_out = self.config.held_out
        rows = self._held_out[: held_out.num_problems_during if when == "during" else held_out.num_problems]
        if not rows:
            return None
        step = self.counters.step
        self.reporter.stage("measuring", step)
        if self._measure_otherwise is not None:
            result = self._measure_otherwise(len(rows))
        else:
            result = self._asked(rows)
        if result is None:
            return None
        self.reporter.emit("evaluation", step=step, when=when, **result)
        values = {"eval/accuracy": result["accuracy"], "eval/quality": result["quality"],
                  **{f"eval/{name}": value for name, value in result["components"].items()}}
        if LOSS in result.get("measures", {}):
            values[f"eval/{LOSS}"] = result["measures"][LOSS]["value"]
        self._scalars(values)
        return result

    def _asked(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the model answers to `rows`, and how well it foresees their demonstrations, where there are any."""
        model = self.whole()
        result = measure(self._family.sampler(model, self.tokenizer), self.tokenizer, rows, config=self.config.held_out,
                         rubric=self.rubric, world=self.world, seed=self.config.seed)
        if told := demonstrations(self.tokenizer, rows, limit=self.model_config.max_position_embeddings):
            result["measures"][LOSS] = held_out_loss(model, told, world=self.world, max_tokens=self.settings.max_micro_tokens)
        return result

    def save(self) -> Path:
        """Begins to write a checkpoint of this moment, and returns its name to be; all ranks must call it.

        Raises MachineError when the disk was full for the one before.
        """
        self._tick()
        extra_state = {**self.extra_state, WATCHED: self._hacks.stored()}
        return self._saver.save(self.counters, metrics=_numbers(self._measured), extra_state=extra_state)

    def _step(self, one_step: Callable[[int], Outcome | None]) -> None:
        began, step = time.monotonic(), self.counters.step
        self._loads, self._train_seconds, self._measured = torch.zeros(0, 0), 0.0, None
        outcome = one_step(step)
        if outcome is None:
            return
        self.counters.step += 1
        shares = self.world.gather((outcome.loss_share, outcome.num_tokens, take_peak_bytes(self.world.device)))
        for rank, (share, _tokens, _peak) in enumerate(shares):
            if not math.isfinite(share):
                raise NonFiniteLoss(rank, self.counters.step)
        num_tokens = sum(tokens for _share, tokens, _peak in shares)
        peaks = [peak for _share, _tokens, peak in shares if peak is not None]
        self.counters.tokens += num_tokens
        seconds = time.monotonic() - began
        biases = self.balance.biases()
        self._scalars({
            "loss": sum(share for share, _tokens, _peak in shares), **outcome.values, **load_metrics(self._loads, biases),
            "perf/step_s": seconds, "perf/train_s": self._train_seconds, "perf/tok_s": num_tokens / seconds,
            "perf/memory_bytes": max(peaks, default=None), **self._burn(),
        })
        if self._loads.numel():
            self.reporter.emit("experts", step=self.counters.step, **load_event(self._loads, biases))

    def _scalars(self, values: dict[str, float | None]) -> None:
        self.reporter.emit("scalars", step=self.counters.step, tokens=self.counters.tokens,
                           process_seconds=self.reporter.process_seconds, values=values)
        for sign, sentence in self._hacks.add(values).items():
            self.reporter.emit("warning", message=f"The reward may be gamed; look at the rollouts. {sentence}", sign=sign)

    def _watch(self, report: UpdateReport, step: int) -> None:
        """Tells of an update that was skipped, and ends the run after many in a row."""
        self._num_skipped = self._num_skipped + 1 if report.is_skipped else 0
        if not report.is_skipped:
            return
        self.reporter.emit("warning", message=(
            f"An update of step {step} was skipped: the gradient was not finite ({self._num_skipped} in a row)."))
        if self._num_skipped >= MAX_SKIPPED[self.config.precision.dtype]:
            raise NonFiniteGradient(step, self._num_skipped)

    def _measure_and_save_when_due(self, *, is_time: bool) -> None:
        """A checkpoint that is due by its step is measured too, so that the best can be told; one by the clock is not."""
        step, held_out, saving = self.counters.step, self.config.held_out, self.config.checkpoint
        is_due = bool(saving.every_steps) and step % saving.every_steps == 0
        wants_measure = bool(held_out.every_steps) and step % held_out.every_steps == 0
        if held_out.num_problems_during and (wants_measure or (is_due and saving.keep_best)):
            self._measured = self.measure("during")
            self._passed_early = self._streak.add(self._measured)
        if (is_due or is_time) and not self._passed_early:  # what ends now is saved as the last one
            self.save()

    def _tick(self) -> None:
        """Adds the time since the last call to what the run, over all attempts, has used."""
        now = self.reporter.process_seconds
        self.counters.device_seconds += (now - self._last_tick) * self.world.size
        self._last_tick = now

    def _ending(self) -> Ending:
        """Whether the run ends at this boundary or should save, decided by the first rank for all."""
        self._saver.advance()
        self._tick()
        decided: Ending = self.world.gather(self._own_ending() if self.world.is_first else None)[0]
        return decided

    def _own_ending(self) -> Ending:
        by, reason = self._why_end()
        return Ending(by, reason, is_time_to_save=self._saver.is_due())

    def _why_end(self) -> tuple[str, str]:
        stop, budget = self.context.rundir.stop, self.config.budget
        if stop.exists():
            return "stop", stop.read_text().strip() or "asked to stop"
        if self._asked_to_end:
            return "stop", self._asked_to_end
        if self.context.signals is not None and self.context.signals.received:
            return "stop", f"The trainer got {self.context.signals.received}."
        reason = used_up(budget, self._spent())
        return ("budget", reason) if reason else ("", "")

    def _spent(self) -> Spent:
        return Spent(self.counters.device_seconds, self.world.size, self.counters.tokens)

    def _burn(self) -> dict[str, float]:
        """What the step that was just made leaves of the budget."""
        self._tick()
        first, spent = self._at_first
        step = self.counters.step
        return burn(self.config.budget, at_first=spent, now=self._spent(), num_done=max(step - first, 1),
                    num_left=max(self.settings.steps - step, 0))

    def _left(self) -> str:
        """What a phase that ends early does not use."""
        left, steps = fraction_left(self.config.budget, self._spent()), self.settings.steps - self.counters.step
        return f"{steps} of {self.settings.steps} steps{'' if left is None else f' and {left:.0%} of the budget'} are left."

    def _ask_benchmark(self) -> dict[str, Any] | None:
        """Asks and tells the benchmark that the gate names; all ranks must call it."""
        if self._benchmark is None:
            return None
        self.reporter.stage("measuring", self.counters.step)
        told = self._benchmark.ask(
            self.sampler(), self.tokenizer, context=self.model_config.max_position_embeddings, world=self.world)
        self.reporter.emit("benchmark", step=self.counters.step, **told)
        return told

    def _finish(self, ended_by: str, reason: str) -> dict[str, Any]:
        counters = self.counters
        if ended_by != "steps":
            self.reporter.emit("stopping", reason=reason, step=counters.step)
        self._measured = None
        final = self.save()
        self._saver.settle()  # first of all: what follows may break or take long
        benchmark = None
        if ended_by != "stop":
            self._measured = self.measure("after")
            self._saver.finish(final, _numbers(self._measured))
            benchmark = self._ask_benchmark()
        before, after = counters.before or {}, self._measured or {}
        seconds = self.reporter.process_seconds
        return {
            "status": "stopped" if ended_by == "stop" else "succeeded", "ended_by": ended_by, "reason": reason,
            "steps": counters.step, "tokens": counters.tokens, "seconds": seconds,
            "device_seconds": seconds * self.world.size,
            **{f"{name}_before": before.get(name) for name in ("accuracy", "quality")},
            **{name: after.get(name) for name in (
                "accuracy", "accuracy_low", "accuracy_high", "quality", "quality_low", "quality_high")},
            "num_problems": after.get("num_problems", 0), "components": after.get("components", {}),
            "measures": {**after.get("measures", {}), **({benchmark["name"]: measure_of(benchmark)} if benchmark else {})},
            "benchmark": benchmark,
            "final_checkpoint": f"checkpoints/{final.name}", "error": None,
        }

    def _resume(self, checkpoint: Path) -> None:
        """Takes up the state of a checkpoint that `start` has verified. Raises ConfigError when it is of another optimizer."""
        check_optimizer(read_metadata(checkpoint).get("layout", {}), self.engine.layout)
        self.counters, scale = read_trainer(checkpoint / "state")
        self.engine.state.restore(StoredState(checkpoint / "state"), scale)
        watched = checkpoint / "state" / WATCHED
        if watched.is_file():
            self._hacks.restore(watched.read_text())

    def _read_held_out(self) -> list[Row]:
        if self.context.paths.dataset is None:
            return []
        limit = max(self.config.held_out.num_problems, self.config.held_out.num_problems_during)
        rows = read_rows(self.context.paths.dataset, "held_out", limit=limit)
        if len(rows) < self.config.held_out.num_problems:
            self.reporter.emit("warning", message=(
                f"The dataset has {len(rows)} held-out problems, fewer than the {self.config.held_out.num_problems} "
                "asked for; the measurement is on those."))
        if self.config.gate.name == LOSS and all(row.completion is None for row in rows):
            raise ConfigError("The gate compares the held-out loss, but no held-out row of the dataset has a demonstration. Choose "
                              "a dataset with demonstrations, or another metric.", field="gate.metric")
        return rows

    def _tell_fallbacks(self) -> None:
        if self.settings.optimizer == "auto" and self.engine.optimizer_kind == "adamw":
            self.reporter.emit("fallback", message=(
                f"AdamW updates the matrices too: Muon needs whole matrices, and ZeRO stage {self.engine.stage} "
                "shards them."))


def _numbers(measured: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (measured or {}).items() if isinstance(value, int | float)}
