"""What every rank of a parity case runs, and how ranks are started: forked from one process that has imported all.

Each case has processes of its own, so that nothing that DeepSpeed keeps in its modules reaches from one to the next.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model_core.config import ModelConfig, RunConfig
from model_core.config.rates import RateFactors
from model_core.launch import free_port
from model_core.model import Transformer
from model_core.training import engine as engines
from model_core.training.balance import ExpertBalance
from model_core.training.engine import TrainingEngine, deepspeed_config
from model_core.training.groups import parameter_groups
from model_core.training.settings import OptimizationConfig
from model_core.training.supervised import supervised_passes
from model_core.training.weights import whole_state
from model_core.training.world import World
from tests.model_core.forked import FORKS, LIMIT_SECONDS
from tests.model_core.reference.plain_training import Example, Recipe

RECIPE = Recipe(
    lr=1.0, layer_lr_decay=0.9, clip_norm=0.2, bias_speed=0.01,
    factors={"norm": 0.25, "mlp.gate.weight": 2.0, "mlp.experts.": 0.5},
)  # fmt: skip
FACTORS = RateFactors(norm=0.25, router=2.0, experts=0.5)
SHAPE = {
    "vocab_size": 24, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "moe_intermediate_size": 16, "n_routed_experts": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "max_position_embeddings": 48,
}


@dataclass(frozen=True)
class Case:
    """A layout, with what differs from the plain model and precision."""

    parallel: dict[str, Any]
    shape: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Transformer:
        """The same one whenever it is called."""
        torch.manual_seed(0)
        return Transformer(ModelConfig.parse({**SHAPE, **self.shape}))


def batches(num: int = 5) -> list[list[Example]]:
    """Batches of demonstrations of very unequal length; one has a single sequence, so that a rank has none."""
    draw = random.Random(0)

    def example() -> Example:
        return [draw.randrange(24) for _ in range(draw.randint(2, 9))], [draw.randrange(24) for _ in range(draw.randint(1, 20))]

    return [[example() for _ in range(size)] for size in [7, 1, 6, 8, 5][:num]]


def sgd(model: nn.Module, settings: OptimizationConfig, _kind: Any, *, clip_norm: float) -> torch.optim.Optimizer:
    """Plain SGD under the groups of the configuration: it hides no wrong scale, as AdamW does."""
    assert not clip_norm, "DeepSpeed clips in every case here"
    return torch.optim.SGD(parameter_groups(model, settings, "adamw"))


def train_case(case: Case, world: World) -> dict[str, Any]:
    """Five steps of a case as this rank; losses are summed over ranks, weights whole."""
    engines.deepspeed_config = _with_all_cut
    if case.precision.get("dtype") == "float16":
        compute_float16_here()
    settings = OptimizationConfig(
        adamw_lr=RECIPE.lr, layer_lr_decay=RECIPE.layer_lr_decay, lr_factors=FACTORS, clip_norm=RECIPE.clip_norm
    )
    config = RunConfig.parse({"phase": "cold_start", "parallel": case.parallel, "precision": case.precision})
    engine = TrainingEngine(case.model(), config, settings, world, make_optimizer=sgd)
    balance = ExpertBalance(engine.module, world)
    losses, norms, loads = [], [], []
    for batch in batches():
        passes = supervised_passes(batch, max_tokens=64, share=engine.share, device=world.device)
        report = engine.update(passes, rate_factor=1.0)
        losses.append(sum(world.gather(report.loss if engine.share.is_teller else 0.0)))
        norms.append(report.grad_norm)
        loads.append(balance.take_loads())
        balance.move(loads[-1], RECIPE.bias_speed)
    return {"losses": losses, "norms": norms, "loads": loads, "biases": balance.biases(),
            "state": {name: tensor.clone() for name, tensor in whole_state(engine.module).items()}}


def compute_float16_here() -> None:
    """Tells DeepSpeed in this process that the CPU may compute float16: torch does, only slowly."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda _self: True


def _with_all_cut(*given: Any) -> dict[str, Any]:
    """ZeRO-3 keeps small weights whole; the weights here are all small."""
    made = deepspeed_config(*given)
    made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return made


def run_ranks(program: Callable[..., Any], argument: Any, *, num: int, directory: Path) -> list[Any]:
    """What `program(argument, world)` returned on each of `num` ranks. A rank that fails or hangs fails the test."""
    directory.mkdir()
    port = free_port()
    ranks = [FORKS.Process(target=_rank, args=(program, argument, rank, num, port, directory)) for rank in range(num)]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    for rank in ranks:
        rank.join(max(0.0, deadline - time.monotonic()))
    for rank in ranks:
        rank.kill()
        rank.join()
    logs = "".join(path.read_text()[-3000:] for path in sorted(directory.glob("*.log")))
    assert all(rank.exitcode == 0 for rank in ranks), logs
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(num)]


def _rank(program: Callable[..., Any], argument: Any, rank: int, size: int, port: int, directory: Path) -> None:
    log = os.open(directory / f"{rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    from model_core.training.world import join

    world = join()
    torch.save(program(argument, world), directory / f"{rank}.pt")
    world.barrier()
    world.close()


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Over all weights, which must have the same names."""
    assert sorted(ours) == sorted(theirs)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def names(cases: Sequence[Case]) -> list[str]:
    """Short names for pytest."""
    return ["-".join(f"{key}{value}" for key, value in case.parallel.items() if key != "num_processes") for case in cases]
