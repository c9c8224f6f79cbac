"""A training frame in this process: the real loop, optimizer, reporter and checkpoints around a model of a few thousand
parameters, with a plain engine in the place of DeepSpeed's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_core.config import ModelConfig, RunConfig, RunPaths
from model_core.data.dataset import Row
from model_core.data.tokenizer import encode_rows, train_tokenizer
from model_core.model import Transformer
from model_core.phases import PHASES
from model_core.rundir import RunDir
from model_core.training import frame as frames
from model_core.training.engine import UpdateReport, optimizer_kind, zero_stage
from model_core.training.frame import Context, Frame
from model_core.training.groups import build_optimizer, set_rates
from model_core.training.layouts import share_of
from model_core.training.muon import MuonWithAdamW
from model_core.training.reporter import Reporter
from model_core.training.settings import OptimizationConfig
from model_core.training.start import Encoded, Start
from model_core.training.state import OPTIMIZER, TrainingState
from model_core.training.supervised import SupervisedSteps
from model_core.training.world import World
from tests.model_core.training.ranks import ALONE

SHAPE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "moe_intermediate_size": 8,
    "n_routed_experts": 4, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "max_position_embeddings": 48,
}
ROWS = [Row(f"{a}+{b}=", f"<think>{a}+{b}={a + b}</think>{a + b}", str(a + b), "sums") for a in range(4) for b in range(2, 5)]


class PlainEngine:
    """`TrainingEngine` in plain torch: gradients of all ranks summed, our own optimizer, the same state to store."""

    def __init__(self, model: Transformer, config: RunConfig, settings: OptimizationConfig, world: World) -> None:
        self.module, self.world, self.share = model, world, share_of(config.parallel, world.rank)
        self.stage, self.optimizer_kind = zero_stage(config), optimizer_kind(config, settings)
        optimizer = build_optimizer(model, settings, self.optimizer_kind, clip_norm=settings.clip_norm)
        assert isinstance(optimizer, MuonWithAdamW), "torch's AdamW tells no norm: clip"
        self.optimizer, self.layout = optimizer, {OPTIMIZER: self.optimizer_kind}
        self.state = TrainingState(SimpleNamespace(optimizer=optimizer), model, model.config, world)

    def update(self, losses: Sequence[Callable[[nn.Module], Tensor]], *, rate_factor: float) -> UpdateReport:
        lr, total = set_rates(self.optimizer.param_groups, rate_factor), 0.0
        self.optimizer.zero_grad()
        for compute in losses:
            loss = compute(self.module)
            total += float(loss.detach())
            loss.backward()  # type: ignore[no-untyped-call]
        if self.world.size > 1:
            for parameter in self.module.parameters():
                parameter.grad = self.world.sum(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        self.optimizer.step()
        norm = self.optimizer.last_norm
        return UpdateReport(total, norm, lr, is_skipped=not math.isfinite(norm))


def model_start(rows: Sequence[Row] = ROWS, *, seed: int = 0, **shape: Any) -> Start:
    """A new model with a tokenizer of `rows`."""
    tokenizer = train_tokenizer(RunConfig(phase="cold_start").tokenizer, rows)
    config = ModelConfig.parse({**SHAPE, "vocab_size": len(tokenizer), **shape})
    torch.manual_seed(seed)
    return Start(Transformer(config), tokenizer, config)


def write_dataset(directory: Path, rows: Sequence[Row] = ROWS) -> Path:
    """The same rows to train on and to measure with; what is there stays."""
    if directory.exists():
        return directory
    directory.mkdir()
    for split in ("train", "held_out"):
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return directory


class Run:
    """One attempt of a run, see `attempts`; `seconds_pass` makes the trainer's clock go forward."""

    def __init__(
        self, directory: Path, *, start: Start | None = None, world: World = ALONE, signals: Any = None,
        resume_from: Path | None = None, rows: Sequence[Row] = ROWS, **values: Any,
    ) -> None:
        held_out = {"num_problems": 4, "num_problems_during": 2, "max_new_tokens": 3}
        self.config = RunConfig.parse({"phase": "cold_start", **values, "held_out": {**held_out, **values.get("held_out", {})},
                                       "checkpoint": {"every_seconds": 0.0, **values.get("checkpoint", {})}})
        self.paths = RunPaths(dataset=str(write_dataset(directory.with_name(f"rows_of_{directory.name}"), rows)),
                              resume_from=str(resume_from) if resume_from else None)
        self.rundir = RunDir(directory) if (directory / "config.json").exists() else RunDir.create(
            directory, run=self.config, paths=self.paths)
        self.reporter = Reporter(self.rundir, is_first=world.is_first)
        context = Context(self.rundir, self.paths, world, self.reporter, signals)
        self.settings = PHASES.get(self.config.phase).Config.parse(self.config.phase_config)
        self.start = start or model_start()
        with ExitStack() as when_refused:
            when_refused.callback(self.reporter.close)
            self.frame = Frame(self.config, self.settings, context, self.start)
            when_refused.pop_all()

    @property
    def examples(self) -> list[Encoded]:
        """The demonstrations as token ids."""
        return encode_rows(self.start.tokenizer, ROWS)

    def train(self) -> dict[str, Any]:
        """Supervised steps to the end."""
        return self.frame.run(SupervisedSteps(self.frame, self.examples, batch_size=self.settings.batch_size))

    def seconds_pass(self, seconds: float) -> None:
        self.reporter.started -= seconds

    def told(self, kind: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.rundir.events.read_text().splitlines()]
        return [event["payload"] for event in events if event["kind"] == kind]

    def series(self, name: str) -> list[Any]:
        return [event["values"][name] for event in self.told("scalars") if name in event["values"]]


Attempt = Callable[..., Run]


@contextmanager
def attempts(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Attempt]:
    """Makes attempts by the name of their directory, and closes what they have open."""
    monkeypatch.setattr(frames, "TrainingEngine", PlainEngine)
    made: list[Run] = []

    def attempt(name: str = "run", **values: Any) -> Run:
        made.append(Run(directory / name, **values))
        return made[-1]

    yield attempt
    for run in made:
        run.reporter.close()
