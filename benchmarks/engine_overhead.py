"""A training step by DeepSpeed's engine with our hooks against a bare PyTorch loop: what the machinery around costs.

Equal model, batches, losses and optimizer (Muon with AdamW, and AdamW alone), float32, one process, one thread. Ours
is what a run does each step: the engine's update, expert loads counted and reduced, routing biases moved. The two take
turns, step by step, so that a busy minute falls on both; the measure is the CPU time of the thread. Goal: at most 1.10.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from benchmarks._report import write
from model_core.config import RunConfig, preset
from model_core.model import Transformer
from model_core.training.balance import ExpertBalance
from model_core.training.engine import TrainingEngine
from model_core.training.groups import build_optimizer, set_rates
from model_core.training.layouts import Share
from model_core.training.settings import OptimizationConfig
from model_core.training.supervised import SupervisedPass, supervised_passes
from model_core.training.world import World, join

GOAL = 1.10
SHAPES = {"tiny": (64, 32, 54, 60), "small": (2048, 4, 129, 12)}
"""Preset → (vocabulary, sequences, tokens each, steps): that of the demo, and a larger one."""
KINDS: tuple[Literal["muon", "adamw"], ...] = ("muon", "adamw")
NUM_WARMUP = 4


def main() -> None:
    """Measures every preset and optimizer and writes the result; the ratio is that of the worst."""
    torch.set_num_threads(1)
    world = join()
    detail = {
        f"{name}, {kind}": measure(name, kind, world) for name in SHAPES for kind in KINDS
    }
    worst = max(detail.values(), key=lambda one: float(one["ratio"]))
    write(
        "engine_overhead", packages=("torch", "deepspeed"), ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"],
        unit="ms of thread CPU time a step, median; ratio is ours to the bare loop's, worst case, goal at most 1.10",
        detail=detail,
    )
    world.close()


def measure(name: str, kind: Literal["muon", "adamw"], world: World) -> dict[str, Any]:
    """Median milliseconds a step of both, and the largest difference of their losses."""
    vocab_size, num_sequences, length, num_steps = SHAPES[name]
    torch.manual_seed(0)
    config = preset(name).model_copy(update={"vocab_size": vocab_size})
    model = Transformer(config)
    twin = Transformer(config)
    twin.load_state_dict(model.state_dict())
    settings = OptimizationConfig(optimizer=kind, muon_lr=1e-4, adamw_lr=1e-4)
    examples = [(torch.randint(vocab_size, (length // 3,)).tolist(), torch.randint(vocab_size, (length - length // 3,)).tolist())
                for _ in range(num_sequences)]
    passes = supervised_passes(examples, max_tokens=4096, share=Share(0, 1, is_teller=True), device=world.device)
    steps = {"ours": _ours(model, settings, world, passes), "peer": _bare(twin, settings, kind, passes)}
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    losses: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(NUM_WARMUP + num_steps):
        for who, step in sorted(steps.items(), reverse=bool(number % 2)):
            began = time.thread_time()
            losses[who].append(step())
            if number >= NUM_WARMUP:
                seconds[who].append(time.thread_time() - began)
    middle = {who: 1000 * statistics.median(taken) for who, taken in seconds.items()}
    return {
        "ours": round(middle["ours"], 2), "peer": round(middle["peer"], 2), "ratio": round(middle["ours"] / middle["peer"], 3),
        "max_loss_difference": max(abs(a - b) for a, b in zip(losses["ours"], losses["peer"], strict=True)),
        "shape": [num_sequences, length], "num_parameters": sum(p.numel() for p in twin.parameters()),
    }


def _ours(
    model: Transformer, settings: OptimizationConfig, world: World, passes: list[SupervisedPass]
) -> Callable[[], float]:
    engine = TrainingEngine(model, RunConfig.parse({"phase": "cold_start"}), settings, world)
    balance = ExpertBalance(engine.module, world)

    def step() -> float:
        report = engine.update(passes, rate_factor=1.0)
        balance.move(balance.take_loads(), 0.0)  # a speed of 0, so that both go on choosing the same experts
        return report.loss

    return step


def _bare(
    model: Transformer, settings: OptimizationConfig, kind: Literal["muon", "adamw"], passes: list[SupervisedPass]
) -> Callable[[], float]:
    optimizer = build_optimizer(model, settings, kind, clip_norm=settings.clip_norm)

    def step() -> float:
        set_rates(optimizer.param_groups, 1.0)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for one in passes:
            loss = one(model)
            total += float(loss.detach())
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return total

    return step


if __name__ == "__main__":
    main()
