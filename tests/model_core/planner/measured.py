"""Real training steps in a process of their own, and the most memory that they took: `python -m` with a JSON list of cases.

What is measured is what malloc has handed out, by its own statistics, after every operator of forward, backward and update,
above what it had before the model was made. Tensors are nearly all of it; what the first step of a process loads and keeps
for ever is taken out by a step before the first case. What an operator takes and gives back inside itself is not seen.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model_core.causal import DenseShape, Student
from model_core.config import ModelConfig, RunConfig
from model_core.model import Transformer
from model_core.training.engine import TrainingEngine
from model_core.training.settings import OptimizationConfig
from model_core.training.supervised import supervised_passes
from model_core.training.world import World, join


class _MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]  # fmt: skip


LIBC = ctypes.CDLL("libc.so.6")
LIBC.mallinfo2.restype = _MallInfo


class Watch(TorchDispatchMode):
    """Keeps the most that was in use after any operator."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.peak = max(self.peak, in_use())
        return out


def in_use() -> int:
    """Bytes of the heap and of mapped blocks that are not free."""
    told = LIBC.mallinfo2()
    return int(told.uordblks + told.hblkhd)


def measured(case: dict[str, Any], world: World) -> int:
    """Bytes at the peak of two updates, the second of two passes over `rows` documents of `tokens` tokens each."""
    gc.collect()
    before = in_use()
    is_student = "model_type" in case["model"]
    shape: Any = DenseShape.of(case["model"], where="case") if is_student else ModelConfig.parse(case["model"])
    config = RunConfig.model_validate({"phase": "cold_start", **case.get("run", {})})
    settings = OptimizationConfig(optimizer=case.get("optimizer", "adamw"))
    with Watch() as watch:
        engine = TrainingEngine(Student(shape) if is_student else Transformer(shape), config, settings, world)
        document = torch.arange(case["tokens"] + 1).remainder(shape.vocab_size).tolist()
        rows, limit = case["rows"], case["rows"] * (case["tokens"] + 1)
        for num_passes in (1, 2):
            examples = [(document[:1], document[1:])] * (rows * num_passes * engine.share.size)
            passes = supervised_passes(examples, max_tokens=limit, share=engine.share, device=world.device)
            assert len(passes) == num_passes
            engine.update(passes, rate_factor=1.0)
    return watch.peak - before


def main() -> None:
    """Measures every case of the argument."""
    torch.set_num_threads(1)
    world, cases = join(), json.loads(sys.argv[1])
    measured(cases[0], world)
    for case in cases:
        torch.manual_seed(0)
        print(json.dumps({"rank": world.rank, "bytes": measured(case, world)}), flush=True)
    world.close()


if __name__ == "__main__":
    main()
