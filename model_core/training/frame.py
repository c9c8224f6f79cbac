"""The loop that every training phase runs in: measuring, steps, events, checkpoints, ends.

A phase gives `run` one function that makes a step. Everything that phases have in common is here: when to measure and
to save, what is told, how a run ends (steps, budget, stop) and how an attempt goes on where an earlier one was stopped.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_core.config import RunConfig, RunPaths
from model_core.data.dataset import read_rows
from model_core.errors import TrainingError
from model_core.grpo.rollouts import Group
from model_core.grpo.rollouts import write as write_rollouts
from model_core.model import Transformer, count_parameters, export_state
from model_core.rollout import Sampler
from model_core.rundir import RunDir
from model_core.scoring import Rubric
from model_core.training import checkpoints
from model_core.training.balance import ExpertBalance, load_event, load_metrics
from model_core.training.engine import TrainingEngine, UpdateReport
from model_core.training.measuring import measure
from model_core.training.reporter import Reporter, versions
from model_core.training.schedule import rate_factor
from model_core.training.settings import OptimizationConfig
from model_core.training.start import Start
from model_core.training.weights import is_split, whole_state
from model_core.training.world import World


@dataclass(frozen=True)
class Context:
    """What surrounds a phase: where it writes, where its inputs lie, who works with it."""

    rundir: RunDir
    paths: RunPaths
    world: World
    reporter: Reporter


@dataclass
class Counters:
    """What a resumed attempt must know besides weights and optimizer."""

    step: int = 0
    tokens: int = 0
    device_seconds: float = 0.0
    before: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What one step did. `values` are the same on all ranks; `loss_share` is this rank's part of the loss."""

    num_tokens: int
    loss_share: float
    values: dict[str, float | None] = field(default_factory=dict)


class NonFiniteLoss(TrainingError):
    """The loss became NaN or infinite; `rank` and `step` say where."""

    def __init__(self, rank: int, step: int) -> None:
        super().__init__(
            f"The loss of rank {rank} is not a finite number in step {step}. The last checkpoint is unharmed: resume "
            "from it with a lower learning rate, or a lower clip_norm."
        )
        self.rank = rank
        self.step = step


class Frame:
    """One training phase on its way from the first measurement to result.json."""

    def __init__(self, config: RunConfig, settings: OptimizationConfig, context: Context, start: Start) -> None:
        self.config, self.settings, self.context = config, settings, context
        self.world, self.reporter = context.world, context.reporter
        self.tokenizer, self.model_config = start.tokenizer, start.model_config
        num_total, num_active = count_parameters(start.model_config)
        self.engine = TrainingEngine(start.model.to(self.world.device), config, settings, self.world)
        self.balance = ExpertBalance(self.engine.module, self.world)
        self.rubric = Rubric(config.reward)
        self.counters = Counters()
        self._held_out = self._read_held_out()
        self._loads = torch.zeros(0, 0)
        self._copy: Transformer | None = None
        self.extra_state: dict[str, str] = {}
        """Small text files that a phase wants back when it is resumed, by name in the checkpoint's `state/`."""
        self._train_seconds = 0.0
        self._last_tick = 0.0
        self._measured: dict[str, Any] | None = None
        self.reporter.emit(
            "started", phase=config.phase, num_processes=self.world.size, device=self.world.device.type,
            num_parameters=num_total, num_active_parameters=num_active, versions=versions(),
        )
        self._tell_fallbacks()
        if context.paths.resume_from:
            self._resume(Path(context.paths.resume_from))

    def run(self, one_step: Callable[[int], Outcome], *, tokens_before: int = 0) -> dict[str, Any]:
        """Makes the steps that are left and returns the content of result.json."""
        counters = self.counters
        counters.tokens += tokens_before if counters.step == 0 else 0
        if counters.step == 0 and counters.before is None:
            counters.before = self.measure("before")
        first, began = counters.step, time.monotonic()
        ended_by, reason = self._ending()
        while not ended_by and counters.step < self.settings.steps:
            self._step(one_step)
            done = counters.step - first
            self.reporter.progress(
                "updating", counters.step, self.settings.steps, seconds=time.monotonic() - began,
                done=None if first == 0 else done / (self.settings.steps - first),
            )
            ended_by, reason = self._ending()
            is_last = bool(ended_by) or counters.step >= self.settings.steps
            if not is_last:
                self._measure_and_save_when_due()
        return self._finish(ended_by or "steps", reason)

    def update(self, losses: Sequence[Callable[[nn.Module], Tensor]], *, step: int) -> UpdateReport:
        """One optimizer step and one move of the routing bias; see `TrainingEngine.update`."""
        began = time.monotonic()
        self.balance.reset()
        settings = self.settings
        report = self.engine.update(losses, rate_factor=rate_factor(
            step, total=settings.steps, warmup=settings.warmup_steps, constant_fraction=settings.constant_fraction,
            final_fraction=settings.final_lr_fraction,
        ))
        loads = self.balance.take_loads()
        if settings.router_bias_speed and loads.numel():
            self.balance.move(loads, settings.router_bias_speed)
        self._loads = loads if self._loads.shape != loads.shape else self._loads + loads
        self._train_seconds += time.monotonic() - began
        return report

    def sampler(self) -> Sampler:
        """A sampler on the current weights; all ranks must call it."""
        return Sampler(self.policy(), eos_token_id=int(self.tokenizer.eos_token_id),
                       pad_token_id=int(self.tokenizer.pad_token_id))

    def policy(self) -> Transformer:
        """The current model with all experts: the trained module itself, or a copy that has them together."""
        module = self.engine.module
        if not is_split(module):
            assert isinstance(module, Transformer)
            return module
        if self._copy is None:
            self._copy = Transformer(self.model_config).to(self.world.device)
        self._copy.load_state_dict(whole_state(module))
        return self._copy

    def keep_rollouts(self, step: int, groups: Sequence[Group]) -> None:
        """Writes the step's rollouts to `samples/` and tells of them."""
        path = self.context.rundir.samples / f"step_{step:08d}.jsonl.gz"
        if self.world.is_first:
            write_rollouts(path, groups)
        self.reporter.emit("rollouts", step=step, file=f"samples/{path.name}", num_groups=len(groups),
                           num_rollouts=sum(len(group.rollouts) for group in groups))

    def wants_to_end(self) -> bool:
        """Whether a stop was asked for or the budget is used up; all ranks must call it."""
        return bool(self._ending()[0])

    def measure(self, when: str) -> dict[str, Any] | None:
        """Answers held-out problems and tells the result; None when there are none."""
        held_out = self.config.held_out
        rows = self._held_out[: held_out.num_problems_during if when == "during" else held_out.num_problems]
        if not rows:
            return None
        step = self.counters.step
        self.reporter.stage("measuring", step)
        result = measure(self.sampler(), self.tokenizer, rows, config=held_out, rubric=self.rubric, world=self.world,
                         seed=self.config.seed)
        self.reporter.emit("evaluation", step=step, when=when, **result)
        values = {"eval/accuracy": result["accuracy"], "eval/quality": result["quality"],
                  **{f"eval/{name}": value for name, value in result["components"].items()}}
        self._scalars(values)
        return result

    def save(self, *, is_final: bool) -> Path:
        """Writes a checkpoint of this moment and thins out the older ones; all ranks must call it."""
        counters, world = self.counters, self.world
        directory = self.context.rundir.checkpoint(counters.step)
        self.reporter.stage("saving", counters.step)
        if world.is_first:
            shutil.rmtree(directory, ignore_errors=True)
            (directory / "state").mkdir(parents=True)
        world.barrier()
        self._tick()
        self.engine.save(directory / "state", asdict(counters))
        state = whole_state(self.engine.module)
        if world.is_first:
            for name, text in self.extra_state.items():
                (directory / "state" / name).write_text(text)
            self._write_model(directory, state, is_final=is_final)
        world.barrier()
        return directory

    def _write_model(self, directory: Path, state: dict[str, Tensor], *, is_final: bool) -> None:
        counters = self.counters
        export_state({name: tensor.detach().float().cpu() for name, tensor in state.items()}, self.model_config,
                     directory / "model", self.tokenizer)
        metrics = {key: value for key, value in (self._measured or {}).items() if isinstance(value, int | float)}
        metadata = checkpoints.seal(directory, {
            "step": counters.step, "phase": self.config.phase, "tokens": counters.tokens, "metrics": metrics,
            "model_config": self.model_config.resolved(), "is_final": is_final,
        })
        self.reporter.emit(
            "checkpoint", step=counters.step, path=f"checkpoints/{directory.name}", metrics=metrics,
            size_bytes=metadata["size_bytes"], sha256=metadata["sha256"], is_final=is_final,
        )
        for step in checkpoints.prune(self.context.rundir, self.config.checkpoint, keep=directory):
            self.reporter.emit("checkpoint_removed", step=step)

    def _step(self, one_step: Callable[[int], Outcome]) -> None:
        began, step = time.monotonic(), self.counters.step
        self._loads, self._train_seconds, self._measured = torch.zeros(0, 0), 0.0, None
        outcome = one_step(step)
        self.counters.step += 1
        shares = self.world.gather((outcome.loss_share, outcome.num_tokens))
        for rank, (share, _tokens) in enumerate(shares):
            if not math.isfinite(share):
                raise NonFiniteLoss(rank, self.counters.step)
        num_tokens = sum(tokens for _share, tokens in shares)
        self.counters.tokens += num_tokens
        seconds = time.monotonic() - began
        biases = self.balance.biases()
        self._scalars({
            "loss": sum(share for share, _tokens in shares), **outcome.values, **load_metrics(self._loads, biases),
            "perf/step_s": seconds, "perf/train_s": self._train_seconds, "perf/tok_s": num_tokens / seconds,
        })
        if self._loads.numel():
            self.reporter.emit("experts", step=self.counters.step, **load_event(self._loads, biases))

    def _scalars(self, values: dict[str, float | None]) -> None:
        self.reporter.emit("scalars", step=self.counters.step, tokens=self.counters.tokens,
                           process_seconds=self.reporter.process_seconds, values=values)

    def _measure_and_save_when_due(self) -> None:
        step, held_out = self.counters.step, self.config.held_out
        if held_out.every_steps and step % held_out.every_steps == 0 and held_out.num_problems_during:
            self._measured = self.measure("during")
        if self.config.checkpoint.every_steps and step % self.config.checkpoint.every_steps == 0:
            self.save(is_final=False)

    def _tick(self) -> None:
        """Adds the time since the last call to what the run, over all attempts, has used."""
        now = self.reporter.process_seconds
        self.counters.device_seconds += (now - self._last_tick) * self.world.size
        self._last_tick = now

    def _ending(self) -> tuple[str, str]:
        """Why the run ends at this boundary ("" when it goes on), decided by the first rank for all."""
        self._tick()
        decided: tuple[str, str] = self.world.gather(self._own_ending() if self.world.is_first else ("", ""))[0]
        return decided

    def _own_ending(self) -> tuple[str, str]:
        stop, budget = self.context.rundir.stop, self.config.budget
        if stop.exists():
            return "stop", stop.read_text().strip() or "asked to stop"
        used = self.counters.device_seconds
        if budget.device_seconds and used >= budget.device_seconds:
            return "budget", f"{used:.0f} of {budget.device_seconds:.0f} device seconds are used"
        if budget.wall_seconds and used / self.world.size >= budget.wall_seconds:
            return "budget", f"{used / self.world.size:.0f} of {budget.wall_seconds:.0f} seconds are used"
        return "", ""

    def _finish(self, ended_by: str, reason: str) -> dict[str, Any]:
        counters = self.counters
        if ended_by != "steps":
            self.reporter.emit("stopping", reason=reason, step=counters.step)
        self._measured = None if ended_by == "stop" else self.measure("after")
        final = self.save(is_final=ended_by != "stop")
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
            "final_checkpoint": f"checkpoints/{final.name}", "error": None,
        }

    def _resume(self, checkpoint: Path) -> None:
        checkpoints.verify(checkpoint)
        self.counters = Counters(**self.engine.load(checkpoint / "state"))

    def _read_held_out(self) -> list[Any]:
        if self.context.paths.dataset is None:
            return []
        limit = max(self.config.held_out.num_problems, self.config.held_out.num_problems_during)
        rows = read_rows(self.context.paths.dataset, "held_out", limit=limit)
        if len(rows) < self.config.held_out.num_problems:
            self.reporter.emit("warning", message=(
                f"The dataset has {len(rows)} held-out problems, fewer than the {self.config.held_out.num_problems} "
                "asked for; the measurement is on those."))
        return rows

    def _tell_fallbacks(self) -> None:
        if self.settings.optimizer == "auto" and self.engine.optimizer_kind == "adamw":
            self.reporter.emit("fallback", message=(
                f"AdamW updates the matrices too: Muon needs whole matrices, and ZeRO stage {self.engine.stage} "
                "shards them."))
