"""Measures what a machine takes for the kinds of work that `model_core.planner.seconds` counts.

Real updates and real sampling of models whose shapes are none of the presets', each kind of work large in some of them and
small in others; the rates are the non-negative ones that miss the measured seconds least, each by its share. One thread is
measured by the time that the processor gave it, so that other work on the machine counts little; several by the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from model_core.config import ModelConfig, RunConfig
from model_core.model import Transformer
from model_core.planner.seconds import Amounts, Batch, Lengths, Rates, optimizer_amounts, pass_amounts, sampling_amounts
from model_core.rollout import Sampler
from model_core.training.balance import ExpertBalance
from model_core.training.engine import TrainingEngine
from model_core.training.layouts import Share
from model_core.training.settings import OptimizationConfig
from model_core.training.supervised import supervised_passes
from model_core.training.world import World

REPEATS = 4
"""Times that each case is measured, after one that is not; the median counts."""
Measured = tuple[str, Amounts, float]
"""The name of a case, its work, and its seconds."""


@dataclass(frozen=True)
class UpdateCase:
    """A model and the demonstrations of one update."""

    shape: dict[str, Any]
    rows: int
    lengths: Lengths
    optimizer: Literal["adamw", "muon"] = "adamw"
    max_tokens: int = 4096


@dataclass(frozen=True)
class SamplingCase:
    """A model, and the answers that it draws."""

    shape: dict[str, Any]
    prompts: int
    group: int
    lengths: Lengths


def _shape(hidden: int, layers: int, heads: int, **more: int) -> dict[str, Any]:
    """A model's shape; widths that are not given follow from these."""
    width = max(8, hidden // heads // 4 * 2)
    given = {
        "vocab_size": 200, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 5 * hidden // 2, "moe_intermediate_size": hidden // 2, "kv_lora_rank": hidden // 4 // 2 * 2,
        "qk_nope_head_dim": width, "qk_rope_head_dim": width // 2 // 2 * 2, "v_head_dim": width, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "max_position_embeddings": 1024,
    }  # fmt: skip
    return {**given, **more}


UPDATES = {
    "narrow": UpdateCase(_shape(96, 2, 4), 24, Lengths(12, 28, 28)),
    "narrow, few tokens": UpdateCase(_shape(96, 4, 4), 8, Lengths(12, 20, 20)),
    "narrow, Muon": UpdateCase(_shape(112, 4, 4), 16, Lengths(12, 28, 28), "muon"),
    "passes": UpdateCase(_shape(160, 3, 5), 40, Lengths(20, 44, 44), max_tokens=640),
    "middle": UpdateCase(_shape(160, 4, 5), 40, Lengths(20, 44, 44)),
    "middle, Muon": UpdateCase(_shape(192, 5, 6, n_routed_experts=12), 16, Lengths(30, 60, 60), "muon"),
    "many words": UpdateCase(_shape(192, 2, 6, vocab_size=6000), 12, Lengths(8, 88, 88)),
    "long": UpdateCase(_shape(144, 2, 6), 4, Lengths(100, 500, 500)),
    "many experts": UpdateCase(_shape(320, 3, 8, n_routed_experts=24, vocab_size=1000), 8, Lengths(40, 120, 120)),
    "wide": UpdateCase(_shape(512, 3, 8, n_routed_experts=6, vocab_size=1000), 6, Lengths(40, 88, 88)),
    "wider": UpdateCase(_shape(1024, 2, 8, n_routed_experts=4, moe_intermediate_size=384), 2, Lengths(40, 88, 88)),
    "wider, one row": UpdateCase(_shape(1024, 2, 8, n_routed_experts=6, moe_intermediate_size=640), 1, Lengths(16, 48, 48)),
    "wide, Muon": UpdateCase(_shape(384, 3, 6), 6, Lengths(30, 70, 70), "muon"),
}
"""By name; every kind of work is most of some case."""
SAMPLINGS = {
    "narrow": SamplingCase(_shape(96, 3, 4), 16, 8, Lengths(20, 24, 24)),
    "narrow, few rows": SamplingCase(_shape(96, 5, 4), 8, 6, Lengths(20, 32, 32)),
    "many rows": SamplingCase(_shape(112, 3, 4), 24, 16, Lengths(20, 32, 32)),
    "middle": SamplingCase(_shape(192, 4, 6), 16, 8, Lengths(24, 24, 24)),
    "long": SamplingCase(_shape(144, 2, 6), 8, 8, Lengths(120, 40, 40)),
    "many words": SamplingCase(_shape(160, 2, 5, vocab_size=5000), 16, 8, Lengths(16, 16, 16)),
    "wide": SamplingCase(_shape(320, 4, 8, n_routed_experts=16, vocab_size=1000), 8, 12, Lengths(30, 20, 20)),
    "wider": SamplingCase(_shape(1024, 2, 8, n_routed_experts=4, moe_intermediate_size=384), 8, 12, Lengths(30, 12, 12)),
    "wider, few rows": SamplingCase(_shape(768, 3, 8, n_routed_experts=6, moe_intermediate_size=640), 6, 4, Lengths(16, 16, 16)),
}


def calibrate(world: World, *, tell: Callable[[str], None] = lambda _line: None) -> Rates:
    """Measures this machine with the threads that torch has now; `tell` is given a line for each case."""
    tokens = torch.Generator().manual_seed(0)
    updates = [(name, *_update(case, world, tokens)) for name, case in UPDATES.items()]
    samplings = [(name, *_sampling(case, tokens)) for name, case in SAMPLINGS.items()]
    found, residuals = {}, {}
    for part, measured in (("update", updates), ("sampling", samplings)):
        found[part] = fit(measured)
        ratios = {name: sum(a * found[part][kind] for kind, a in amounts.items()) / s for name, amounts, s in measured}
        residuals[part] = round(max(abs(ratio - 1) for ratio in ratios.values()), 3)
        for name, _amounts, taken in measured:
            tell(f"{part}, {name}: {1000 * taken:.1f} ms, by the rates {ratios[name]:.2f} times that")
    return Rates(update=found["update"], sampling=found["sampling"], num_threads=torch.get_num_threads(), machine=_machine(),
                 date=time.strftime("%Y-%m-%d"), residuals=residuals)


def fit(measured: Sequence[Measured]) -> dict[str, float]:
    """Seconds a unit of each kind of work, none below 0, with the least squares of the shares by which they miss.

    Source: Lawson and Hanson, “Solving Least Squares Problems” (1974), chapter 23, by scipy.
    """
    import numpy as np
    from scipy.optimize import nnls

    kinds = sorted({kind for _name, amounts, _seconds in measured for kind in amounts})
    shares = np.array([[amounts[kind] / seconds for kind in kinds] for _name, amounts, seconds in measured])
    sizes = np.maximum(shares.max(axis=0), 1e-300)
    found, _missed = nnls(shares / sizes, np.ones(len(measured)))
    return {kind: float(rate) for kind, rate in zip(kinds, found / sizes, strict=True)}


def _update(case: UpdateCase, world: World, tokens: torch.Generator) -> tuple[Amounts, float]:
    torch.manual_seed(0)
    shape = ModelConfig.parse(case.shape)
    settings = OptimizationConfig(optimizer=case.optimizer, muon_lr=1e-5, adamw_lr=1e-5)
    engine = TrainingEngine(Transformer(shape), RunConfig(phase="cold_start"), settings, world)
    balance = ExpertBalance(engine.module, world)
    examples = [
        (_drawn(shape, case.lengths.prompt, tokens), _drawn(shape, case.lengths.answer, tokens)) for _ in range(case.rows)
    ]
    passes = supervised_passes(examples, max_tokens=case.max_tokens, share=Share(0, 1, is_teller=True), device=world.device)

    def step() -> None:
        engine.update(passes, rate_factor=1.0)
        balance.move(balance.take_loads(), 0.0)

    batch = Batch.of(case.rows, case.lengths, max_tokens=case.max_tokens)
    assert (batch.passes, batch.tokens) == (len(passes), sum(one.tokens.numel() for one in passes)), "counted otherwise than done"
    return pass_amounts(shape, batch) + optimizer_amounts(shape, has_muon=case.optimizer == "muon"), seconds_taken(step)


def _sampling(case: SamplingCase, tokens: torch.Generator) -> tuple[Amounts, float]:
    torch.manual_seed(0)
    shape = ModelConfig.parse(case.shape)
    sampler = Sampler(Transformer(shape), eos_token_id=shape.vocab_size, pad_token_id=0)  # no end: all are equally long
    prompts = [_drawn(shape, case.lengths.prompt, tokens) for _ in range(case.prompts)]
    rows = case.prompts * case.group

    def draw() -> None:
        sampler.generate(prompts, num_samples=case.group, max_new_tokens=case.lengths.answer, seed=0)

    return sampling_amounts(shape, rows, case.prompts, case.lengths), seconds_taken(draw)


def seconds_taken(work: Callable[[], object]) -> float:
    """The median of a few times, after one that warms up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.monotonic
    found = []
    for _ in range(REPEATS + 1):
        began = clock()
        work()
        found.append(clock() - began)
    return statistics.median(found[1:])


def _drawn(shape: ModelConfig, length: int, tokens: torch.Generator) -> list[int]:
    found: list[int] = torch.randint(shape.vocab_size, (length,), generator=tokens).tolist()
    return found


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or "CPU"
