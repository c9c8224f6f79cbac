"""The article's switches, each turned on a real model: it changes what it is there for, and nothing else.

float16 is DeepSpeed's own, on a CPU that is told it may: torch computes it there, only slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from model_core.config import ModelConfig, RunConfig
from model_core.config.rates import RateFactors
from model_core.model import Transformer
from model_core.phases import PHASES
from model_core.planner.activations import Activations
from model_core.training.engine import TrainingEngine, checkpoint_blocks
from model_core.training.layouts import Share
from model_core.training.peak import take_peak_bytes
from model_core.training.settings import OptimizationConfig
from model_core.training.supervised import supervised_passes
from model_core.training.world import World
from tests.model_core.reference import plain_training
from tests.model_core.reference.plain_training import Recipe
from tests.model_core.training.in_process import Attempt
from tests.model_core.training.parity import SHAPE, batches, compute_float16_here, run_ranks, sgd
from tests.model_core.training.ranks import CPU

RECIPE = Recipe(lr=1.0, layer_lr_decay=1.0, clip_norm=0.2, bias_speed=0.0)
BITS = {"bfloat16": 8, "float16": 11}
"""Bits of a number before its exponent."""
POWER = 10
ALL = Share(0, 1, is_teller=True)


def made(**changes: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.parse({**SHAPE, **changes}))


def loss_of(model: nn.Module) -> Tensor:
    [one] = supervised_passes(batches(1)[0], max_tokens=1000, share=ALL, device=CPU)
    return one(model)


# --- gradient checkpointing


def forward_and_back(model: Transformer) -> tuple[int, float, dict[str, Tensor]]:
    """Bytes of the activations that one forward pass keeps, its loss and the gradients that follow."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model)
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    loss.backward()  # type: ignore[no-untyped-call]
    return num_bytes, float(loss.detach()), gradients_of(model)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_checkpointing_keeps_a_part_of_the_activations_and_computes_the_very_same() -> None:
    plain, recomputing = made(num_hidden_layers=6), made(num_hidden_layers=6)
    checkpoint_blocks(recomputing)
    (all_bytes, loss, gradients), (few_bytes, same_loss, same_gradients) = forward_and_back(plain), forward_and_back(recomputing)
    assert few_bytes < all_bytes / 4
    assert same_loss == loss and gradients.keys() == same_gradients.keys()
    assert all(torch.equal(same_gradients[name], gradient) for name, gradient in gradients.items()), "recomputed, not approximated"
    planned = [Activations(plain.config, tokens=100, size=4).kept(range(6), checkpointing=on) for on in (False, True)]
    assert planned[1] < planned[0] / 4, "the planner reckons with it"


def peak_bytes(model: Transformer) -> int:
    """What is told of a forward and a backward pass over 1,500 tokens."""
    [one] = supervised_passes([([1] * 20, [2] * 25)] * 34, max_tokens=2000, share=ALL, device=CPU)
    take_peak_bytes(CPU)
    one(model).backward()  # type: ignore[no-untyped-call]
    peak = take_peak_bytes(CPU)
    assert peak is not None
    return peak


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def both_peaks() -> list[int]:
    """With checkpointing and without, above what was held before; first the one that should need less, for what is freed is
    used again and would be counted for nobody."""
    shape = {"num_hidden_layers": 24, "hidden_size": 64, "intermediate_size": 256, "moe_intermediate_size": 64}
    recomputing, plain = made(**shape), made(**shape)
    checkpoint_blocks(recomputing)
    loss_of(recomputing).backward()  # type: ignore[no-untyped-call]  # what is made once is not measured
    before = resident_bytes()
    return [peak_bytes(recomputing) - before, peak_bytes(plain) - before]


@pytest.mark.skipif(take_peak_bytes(CPU) is None, reason="this system does not tell how much memory a process had at most")
def test_the_memory_that_is_told_is_less_with_checkpointing(told: dict[str, Any]) -> None:
    few, many = told["peaks"]
    assert few < 0.7 * many


@pytest.mark.skipif(take_peak_bytes(CPU) is None, reason="this system does not tell how much memory a process had at most")
def test_the_peak_is_of_the_time_since_one_last_asked() -> None:
    take_peak_bytes(CPU)
    before = resident_bytes()
    held = torch.ones(16 << 20)
    del held
    risen, later = take_peak_bytes(CPU), take_peak_bytes(CPU)
    assert risen is not None and later is not None and risen - before > 60 << 20 and risen - later > 60 << 20


# --- float16 and bfloat16


def spoilt(one: Callable[[nn.Module], Tensor]) -> Callable[[nn.Module], Tensor]:
    """The same pass with a loss so large that its gradient does not fit into float16."""
    return lambda model: one(model) * 1e8


def trained(
    world: World, *, dtype: str, checkpointing: bool = False, power: int = POWER, spoil: Sequence[int] = (), num: int = 5
) -> dict[str, Any]:
    """Some steps as this rank, and what can be seen of them."""
    precision = {"dtype": dtype, "gradient_checkpointing": checkpointing, "loss_scale_power": power}
    config = RunConfig.parse({"phase": "cold_start", "precision": precision, "parallel": {"zero_stage": 1}})
    optimization = OptimizationConfig(adamw_lr=RECIPE.lr, clip_norm=RECIPE.clip_norm)
    engine = TrainingEngine(made(), config, optimization, world, make_optimizer=sgd)
    reports, weights = [], [_weights(engine)]
    for step, batch in enumerate((batches() * num)[:num]):
        passes = supervised_passes(batch, max_tokens=64, share=engine.share, device=world.device)
        reports.append(engine.update([spoilt(one) if step in spoil else one for one in passes], rate_factor=1.0))
        weights.append(_weights(engine))
    masters = engine._engine.optimizer.single_partition_of_fp32_groups
    return {
        "losses": [report.loss for report in reports], "values": [report.values for report in reports],
        "skipped": [report.is_skipped for report in reports], "weights": weights,
        "dtypes": sorted({str(parameter.dtype) for parameter in engine.module.parameters()}),
        "masters": sorted({str(master.dtype) for master in masters}),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in engine.module.parameters()),
    }  # fmt: skip


def _weights(engine: TrainingEngine) -> Tensor:
    return torch.cat([parameter.detach().float().flatten() for parameter in engine.module.parameters()])


RUNS: dict[str, dict[str, Any]] = {
    **{dtype: {"dtype": dtype} for dtype in BITS},
    **{f"{dtype} recomputed": {"dtype": dtype, "checkpointing": True} for dtype in BITS},
    "other scale": {"dtype": "float16", "power": POWER + 2},
    "overflows": {"dtype": "float16", "spoil": (1, 2)},
    "nothing but overflows": {"dtype": "float16", "spoil": range(6), "num": 6, "power": 2},
}


def train_all(runs: dict[str, dict[str, Any]], world: World) -> dict[str, Any]:
    """In a process of its own, whose CPU DeepSpeed is told to be one that computes float16."""
    compute_float16_here()
    return {"peaks": both_peaks(), **{name: trained(world, **run) for name, run in runs.items()}}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each of `RUNS`, and `both_peaks`."""
    [found] = run_ranks(train_all, RUNS, num=1, directory=tmp_path_factory.mktemp("switches") / "ranks")
    result: dict[str, Any] = found
    return result


@pytest.mark.parametrize("dtype", BITS)
def test_half_precision_halves_the_weights_and_keeps_masters_in_full(dtype: str, told: dict[str, Any]) -> None:
    assert told[dtype]["dtypes"] == [f"torch.{dtype}"] and told[dtype]["masters"] == ["torch.float32"]
    assert told[dtype]["bytes"] == 2 * sum(parameter.numel() for parameter in made().parameters())


@pytest.mark.parametrize("dtype", BITS)
def test_half_precision_differs_by_its_rounding_only(dtype: str, told: dict[str, Any]) -> None:
    """By one unit of its bits at the size of the loss, which is about 3; a wrong scale would be far outside."""
    losses, _norms = plain_training.train(made(), batches(), RECIPE)
    assert told[dtype]["losses"] == pytest.approx(losses, abs=3 * 2.0 ** -BITS[dtype])
    assert not any(told[dtype]["skipped"])


@pytest.mark.parametrize("dtype", BITS)
def test_half_precision_and_checkpointing_go_together_and_compute_the_very_same(dtype: str, told: dict[str, Any]) -> None:
    plain, recomputed = told[dtype], told[f"{dtype} recomputed"]
    assert plain["losses"] == recomputed["losses"]
    assert all(torch.equal(one, other) for one, other in zip(plain["weights"], recomputed["weights"], strict=True))


def test_the_scale_of_the_loss_is_told_in_float16_only_and_changes_no_more_than_rounding(told: dict[str, Any]) -> None:
    assert told["bfloat16"]["values"] == [{}] * 5
    assert told["float16"]["values"] == [{"fp16/loss_scale": 2.0**POWER, "fp16/skipped": 0.0}] * 5
    assert [values["fp16/loss_scale"] for values in told["other scale"]["values"]] == [2.0 ** (POWER + 2)] * 5
    assert told["other scale"]["losses"] == pytest.approx(told["float16"]["losses"], abs=3 * 2.0 ** -BITS["float16"])


def test_an_overflow_leaves_the_weights_as_they_are_and_halves_the_scale_from_the_second_on(told: dict[str, Any]) -> None:
    run = told["overflows"]
    assert run["skipped"] == [False, True, True, False, False]
    moved = [not torch.equal(before, after) for before, after in zip(run["weights"], run["weights"][1:], strict=False)]
    assert moved == [True, False, False, True, True]
    assert [values["fp16/loss_scale"] for values in run["values"]] == [2.0**POWER] * 3 + [2.0 ** (POWER - 1)] * 2
    assert [values["fp16/skipped"] for values in run["values"]] == [0.0, 1.0, 2.0, 2.0, 2.0]


def test_a_scale_that_cannot_fall_further_breaks_nothing(told: dict[str, Any]) -> None:
    """The frame ends such a run with a sentence; DeepSpeed would raise a bare exception."""
    run = told["nothing but overflows"]
    assert run["skipped"] == [True] * 6 and torch.equal(run["weights"][0], run["weights"][-1])
    assert [values["fp16/loss_scale"] for values in run["values"]] == [4.0, 4.0, 2.0, 1.0, 1.0, 1.0]


def test_what_an_update_tells_and_the_memory_it_took_are_logged(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    run = attempt(phase_config={"steps": 2, "aux_loss_alpha": 0.1})
    update = run.frame.engine.update
    monkeypatch.setattr(run.frame.engine, "update", lambda *args, **more: replace(update(*args, **more), values={"fp16/loss_scale": 4.0}))
    run.train()
    assert run.series("fp16/loss_scale") == [4.0, 4.0] and len(run.series("moe/balance_loss")) == 2
    assert all(peak is None or peak > 1 << 20 for peak in run.series("perf/memory_bytes"))


# --- everywhere


@pytest.mark.parametrize("name", PHASES.names())
def test_every_phase_that_trains_has_all_switches(name: str) -> None:
    phase_config = {"layer_lr_decay": 0.9, "lr_factors": {"head": 0.5}}
    precision = {"dtype": "bfloat16", "gradient_checkpointing": True}
    config = RunConfig.parse({"phase": name, "phase_config": phase_config, "precision": precision, "parallel": {"zero_stage": 1}})
    assert config.phase_config["lr_factors"] == RateFactors(head=0.5).resolved() and config.phase_config["layer_lr_decay"] == 0.9
    assert config.precision.dtype == "bfloat16" and config.precision.gradient_checkpointing
