"""Seconds of a step on a machine whose rates were measured: how much of each kind of work it has, times what a unit takes there.

What is counted here follows from the configuration and the lengths of prompts and answers alone; the rates come from
`model_core.training.calibration`, which measures them on models of other shapes. One process, a model of our own, float32.
Letters: D hidden, H heads, R latent rank, P rotary width, C = R + P, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from model_core.config import ModelConfig, RunConfig
from model_core.config.base import StrictModel
from model_core.errors import ConfigError
from model_core.phases import PHASES
from model_core.planner.activations import FLOAT, Activations
from model_core.planner.dense import DenseModel
from model_core.planner.memory import effective_stage
from model_core.planner.muon import matrices, orthogonal_flops
from model_core.planner.parameters import Shape, count_parameters, parameters
from model_core.planner.run import MAX_ROWS, with_vocabulary

FORWARD = 1 / 3
"""Share of an update's passes that a forward pass alone is: the backward pass multiplies twice where it does once."""
WITHIN = 0.3
"""How far a prediction may be off on a machine that is left alone; `docs/experiments.md` has what was measured on a shared one."""
PREDICTED = ("cold_start", "reinforcement")
"""Phases whose steps are counted."""

KINDS = {
    "update": {"products", "attention", "moved", "weights", "blocks", "updated", "update_blocks", "orthogonal", "turned"},
    "sampling": {"products", "cache", "moved", "weights", "logits", "blocks"},
}
"""The kinds of work that are counted, in what; see `pass_amounts`, `optimizer_amounts` and `sampling_amounts`."""
Amounts = Counter[str]
"""How much there is of each kind of work, by its name."""


class Rates(StrictModel):
    """What a unit of each kind of work takes on one machine, with one number of threads a process."""

    update: dict[str, float]
    """Seconds a unit of what `pass_amounts` and `optimizer_amounts` count."""
    sampling: dict[str, float]
    """Seconds a unit of what `sampling_amounts` counts."""
    num_threads: int = Field(ge=1)
    """Threads of the process that was measured."""
    machine: str
    """The processor, as it calls itself."""
    date: str
    """Day on which it was measured."""
    residuals: dict[str, float] = {}
    """Of "update" and "sampling" the largest share by which the rates miss the shapes that they were measured on."""

    @field_validator("update", "sampling")
    @classmethod
    def _knows_each_kind(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        wanted = KINDS[str(info.field_name)]
        if value.keys() != wanted or min(value.values()) < 0:
            raise ValueError(f"the rates must be of {', '.join(sorted(wanted))}, none below 0; measure them with `calibrate`")
        return value

    @property
    def source(self) -> str:
        """Where they are from, in words."""
        return f"{self.machine}, {self.num_threads} thread{'s' * (self.num_threads > 1)}, {self.date}"


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt and of an answer, end token included, and of the longest answer of a step."""

    prompt: int
    answer: int
    longest: int


@dataclass(frozen=True)
class Batch:
    """What goes through the model in the passes of one update."""

    passes: int
    rows: int
    width: int
    """Tokens of a row as attention sees it."""
    tokens: int
    """Tokens of all rows; a prompt that several rows share counts once."""
    targets: int

    @classmethod
    def of(cls, rows: int, lengths: Lengths, *, max_tokens: int, group: int = 1) -> Batch:
        """`rows` answers, `group` to each prompt, in passes of at most `max_tokens`. Answers of like length are put together, but
        those of a prompt stay together, and each group has a long one."""
        whole = lengths.prompt + (lengths.longest if group > 1 else lengths.answer)
        per_pass = max(1, max_tokens // whole)
        tokens = rows * (lengths.answer - 1) + -(-rows // group) * lengths.prompt
        return cls(-(-rows // per_pass), rows, whole - 1, tokens, rows * lengths.answer)


@dataclass(frozen=True)
class StepSeconds:
    """What a step of a phase takes, by part."""

    parts: dict[str, float]
    tokens: int
    """Tokens of prompts and answers that the step is about."""
    source: str

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self.parts.values())


def step_seconds(config: RunConfig, shape: Shape, lengths: Lengths, rates: Rates) -> StepSeconds:
    """What a step of `config` takes. Raises ConfigError for what is not counted: another phase, a student, several processes, or
    another precision than float32."""
    _refuse_uncounted(config, shape)
    shape = with_vocabulary(shape, config)
    assert isinstance(shape, ModelConfig)
    settings: Any = PHASES.get(config.phase).Config.parse(config.phase_config, prefix="phase_config")
    is_whole = effective_stage(config.parallel, config.precision.dtype) == 0
    has_muon = settings.optimizer == "muon" or (settings.optimizer == "auto" and is_whole)
    optimizer = optimizer_amounts(shape, has_muon=has_muon)
    if config.phase == "cold_start":
        batch = Batch.of(settings.batch_size, lengths, max_tokens=settings.max_micro_tokens)
        tokens = settings.batch_size * (lengths.prompt + lengths.answer)
        return StepSeconds({"update": seconds_of(pass_amounts(shape, batch) + optimizer, rates.update)}, tokens, rates.source)
    rows = settings.prompts_per_step * settings.group_size
    tokens = rows * (lengths.prompt + lengths.answer)
    minibatch = Batch.of(
        -(-rows // settings.num_minibatches), lengths, max_tokens=settings.max_micro_tokens, group=settings.group_size
    )
    updates = settings.num_minibatches * settings.num_epochs
    parts = {
        "sampling": seconds_of(sampling_amounts(shape, rows, settings.prompts_per_step, lengths), rates.sampling),
        "update": updates * seconds_of(pass_amounts(shape, minibatch) + optimizer, rates.update),
    }
    if compared := _compared(settings, rows):
        batch = Batch.of(compared, lengths, max_tokens=settings.max_micro_tokens)
        parts["comparison"] = FORWARD * seconds_of(pass_amounts(shape, batch), rates.update)
    return StepSeconds(parts, tokens, rates.source)


def _compared(settings: Any, rows: int) -> int:
    """Rollouts of a step that go through a model forwards once more: the reference's for the loss, or policy's and reference's for
    the probe, and those whose old log-probabilities the trainer tells."""
    probed = rows if settings.kl_coef else 2 * min(rows, settings.kl_probe)
    return int(probed * (settings.num_epochs if settings.kl_coef else 1) + rows * (settings.importance_cap > 0))


def seconds_of(amounts: Amounts, rates: dict[str, float]) -> float:
    """The sum over the kinds of work."""
    return sum(amount * rates[name] for name, amount in amounts.items())


def pass_amounts(config: ModelConfig, batch: Batch) -> Amounts:
    """Forward and backward: FLOPs of products and of attention, bytes that are kept, numbers of weights that are read and whose
    gradients are written, and operators, a unit a block."""
    head = config.vocab_size * config.hidden_size
    inside = count_parameters(config)[1] - head
    kept = Activations(config, tokens=1, size=FLOAT)
    moved = sum(kept.block(index) for index in range(config.num_hidden_layers))
    width = config.qk_nope_head_dim + config.qk_rope_head_dim
    return Counter({
        "products": 6 * (batch.tokens * inside + batch.targets * head),
        "attention": 12 * config.num_hidden_layers * config.num_attention_heads * batch.rows * batch.width**2 * width,
        "moved": batch.tokens * moved + batch.targets * kept.head(),
        "weights": batch.passes * parameters(config).trained,
        "blocks": batch.passes * (config.num_hidden_layers + 1),
    })  # fmt: skip


def optimizer_amounts(config: ModelConfig, *, has_muon: bool) -> Amounts:
    """One update: numbers that are clipped and updated, FLOPs of Muon's products, and the optimizer's operators, a unit a block."""
    return Counter({
        "updated": parameters(config).trained, "update_blocks": config.num_hidden_layers + 1,
        "orthogonal": orthogonal_flops(config) * has_muon, "turned": matrices(config) * has_muon,
    })  # fmt: skip


def sampling_amounts(config: ModelConfig, rows: int, prompts: int, lengths: Lengths) -> Amounts:
    """Reading `prompts` and drawing `rows` answers: FLOPs of products and over the cache, bytes that are moved, numbers of weights
    that each step reads, numbers of logits that are drawn from, operators, a unit a block and step. Steps go on until the longest
    answer ends; those that have ended are soon taken out."""
    c, head = config, config.vocab_size * config.hidden_size
    inside = count_parameters(config)[1] - head
    kept = Activations(config, tokens=1, size=FLOAT)
    moved = sum(kept.block(index) for index in range(c.num_hidden_layers))
    read, drawn = prompts * lengths.prompt, rows * (lengths.answer - 1)
    seen = rows * sum(lengths.prompt + made for made in range(1, lengths.answer))
    steps = -(-rows // MAX_ROWS) * (lengths.longest - 1)
    return Counter({
        "products": 2 * ((read + drawn) * inside + drawn * head),
        "cache": 2 * c.num_hidden_layers * c.num_attention_heads * (2 * c.kv_lora_rank + c.qk_rope_head_dim) * seen,
        "moved": (read + drawn) * moved,
        "logits": drawn * c.vocab_size,
        "weights": steps * parameters(c).total,
        "blocks": steps * (c.num_hidden_layers + 1),
    })  # fmt: skip


def _refuse_uncounted(config: RunConfig, shape: Shape) -> None:
    wrong = ""
    if config.phase not in PREDICTED:
        wrong = f"a step of {config.phase} is not counted, only those of {' and '.join(PREDICTED)}"
    elif isinstance(shape, DenseModel):
        wrong = f"the model is a {shape.model_type}, and only models of our own are counted"
    elif config.parallel.num_processes > 1:
        wrong = f"the run has {config.parallel.num_processes} processes, and what they wait for each other is not counted"
    elif config.precision.dtype != "float32" or config.precision.gradient_checkpointing:
        wrong = "rates are measured in float32 on a CPU, without recomputation"
    elif shape.num_nextn_predict_layers or config.phase_config.get("rollout") == "endpoint":
        wrong = "neither multi-token prediction nor an engine that samples elsewhere is counted"
    if wrong:
        raise ConfigError(f"The seconds of a step are not predicted: {wrong}. Measure a few steps, and give tokens_per_second.",
                          field="calibration")
