"""What a run is: everything the trainer reads from `config.json`, complete and resolved.

What belongs to one phase only (learning rates, group size …) is in that phase's own `Config`, nested as
`phase_config`; `RunConfig.parse` validates it with the phase's class. Paths are in `RunPaths`: the platform stores
a `RunConfig`, and writes the paths into the run directory when an attempt starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from model_core.config.base import StrictModel
from model_core.config.combinations import check_combination
from model_core.config.gate import BenchmarkConfig, GateConfig, check_gate
from model_core.config.model import ModelConfig, preset
from model_core.errors import ConfigError

if TYPE_CHECKING:
    from model_core.registry import Registry


class ParallelConfig(StrictModel):
    """How the work is split over processes by DeepSpeed. What `pipeline` and `tensor` leave over shares the data: every
    batch is divided among `data` = num_processes / (pipeline · tensor) groups, which move the same weights alike."""

    num_processes: int = Field(1, ge=1)
    """Trainer processes of the whole run; on GPUs each one holds one device."""
    expert: int = Field(1, ge=1)
    """Data-parallel processes over which the routed experts are split (AutoEP): less memory, and tokens travel to the
    experts. Take the smallest that fits."""
    pipeline: int = Field(1, ge=1)
    """Stages that the blocks are cut into, each on its own processes: less memory, little traffic. A step needs several
    forward passes (`max_micro_tokens`) to keep all stages at work. Supervised phases only; ZeRO stage 1."""
    tensor: int = Field(1, ge=1)
    """Processes over which attention heads and MLPs are split (AutoTP): less memory, much traffic, so that they should
    be of one machine. Routed experts stay whole. Supervised phases only; ZeRO stage 1, 2 or 3."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: data-parallel processes share the optimizer (1), also gradients (2), also weights (3). 0 shares nothing.
    One process in float32 has nobody to share with and goes without."""
    offload: Literal["none", "optimizer"] = "none"
    """"optimizer": optimizer states and their update are in the memory of the CPU: less of the GPU's memory, slower steps.
    Needs a GPU."""

    @property
    def data(self) -> int:
        """Groups of processes among which a batch is divided."""
        return self.num_processes // (self.pipeline * self.tensor)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.num_processes % (self.pipeline * self.tensor):
            raise ValueError(
                f"pipeline {self.pipeline} times tensor {self.tensor} must divide num_processes {self.num_processes}")
        if self.data % self.expert:
            raise ValueError(
                f"expert {self.expert} must divide the {self.data} data-parallel processes: num_processes "
                f"{self.num_processes} over pipeline {self.pipeline} times tensor {self.tensor}"
            )
        return self


class PrecisionConfig(StrictModel):
    """Numbers and memory: the article's optimisations."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Training precision; 16-bit kinds need a GPU to pay and ZeRO stage 1 or more. float16 is not for pipelines."""
    loss_scale_power: int = Field(12, ge=0, le=24)
    """float16 only: the loss is multiplied by 2 to this power at first. From the second overflow of the gradients on the factor
    is halved, and after 1,000 updates without one it is doubled."""
    gradient_checkpointing: bool = False
    """Recomputes activations in the backward pass: less memory, about a third more time."""


class BudgetConfig(StrictModel):
    """Where a run ends even if steps are left; read at step boundaries: it writes a checkpoint, is measured, and its gate is
    decided."""

    device_seconds: float | None = Field(None, gt=0)
    """Seconds times devices; empty: no limit."""
    wall_seconds: float | None = Field(None, gt=0)
    """Seconds on the clock; empty: no limit."""
    tokens: int | None = Field(None, gt=0)
    """Tokens processed in training steps; empty: no limit."""
    dollars: float | None = Field(None, gt=0)
    """Dollars at `dollars_per_device_hour`; empty: no limit."""
    dollars_per_device_hour: float | None = Field(None, gt=0)
    """What one device costs in an hour; needed by a limit in dollars."""


PROFILES: dict[str, dict[str, float]] = {
    "article": {"logical_consistency": 0.4, "solution_accuracy": 0.3, "reasoning_clarity": 0.2, "efficiency": 0.1},
    "r1_zero": {"solution_accuracy": 1.0, "format": 1.0},
    "r1": {"solution_accuracy": 1.0, "language_consistency": 1.0, "format": 1.0},
}
"""Weights of the reward by name: the article's, and those of DeepSeek-R1-Zero and of DeepSeek-R1's reasoning stage, which
adds its parts up with equal weights (arXiv 2501.12948, sections 2.2.2 and 2.3.2)."""


class RewardConfig(StrictModel):
    """Reward components by file name in `model_core/rewards`; the default is the article's.

    The name of a profile is a whole reward: `"reward": "r1"`. What is stored are its weights.
    """

    weights: dict[str, float] = Field(default_factory=lambda: dict(PROFILES["article"]))
    """Factor of each component in the sum; they need not add to 1."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The components' own settings by name; those of a component without a weight are left out."""
    from_step: dict[str, int] = Field(default_factory=dict)
    """Step of the reinforcement from which on a component counts, by name; the others count from the first. Before it the
    component is not asked and adds nothing, and the other weights stay as they are, as in the paper's sum. What is measured on
    held-out problems is always the whole reward."""

    @model_validator(mode="before")
    @classmethod
    def _profile_by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in PROFILES:
            raise ValueError(f"there is no reward profile “{value}”; there are: {', '.join(sorted(PROFILES))}")
        return {"weights": dict(PROFILES[value])}

    @field_validator("weights")
    @classmethod
    def _not_empty(cls, value: dict[str, float]) -> dict[str, float]:
        if not value:
            raise ValueError("a reward needs at least one component with a weight")
        return value

    @model_validator(mode="after")
    def _begins(self) -> Self:
        for name, step in self.from_step.items():
            if name not in self.weights:
                raise ValueError(f"from_step names {name}, which has no weight; leave it out, or give it one")
            if step < 1:
                raise ValueError(f"from_step of {name} is {step}, but steps are counted from 1")
        if all(self.from_step.get(name, 1) > 1 for name in self.weights):
            raise ValueError("from_step lets every component begin late; let one count from the first step")
        return self

    @classmethod
    def parse(cls, values: dict[str, Any] | str, *, prefix: str = "reward") -> Self:
        """Validates and fills in the settings of each weighted component; a name is a profile's. Raises ConfigError or
        UnknownName."""
        from model_core.rewards import REWARDS

        given: Any = values
        return super().parse(given, prefix=prefix)._with_settings(REWARDS, prefix)

    def _with_settings(self, rewards: Registry, prefix: str) -> Self:
        for name in self.settings:
            rewards.get(name, field=f"{prefix}.settings.{name}")
        settings = {
            name: rewards.get(name, field=f"{prefix}.weights.{name}")
            .Config.parse(self.settings.get(name, {}), prefix=f"{prefix}.settings.{name}").resolved()
            for name in self.weights
        }
        for name, values in settings.items():
            for setting, remedy in getattr(rewards.get(name), "required", {}).items():
                if not values[setting]:
                    where = f"{prefix}.settings.{name}.{setting}"
                    raise ConfigError(f"{where}: the component {name} cannot judge without it; {remedy}.", field=where)
        return self.model_copy(update={"settings": settings})


class HeldOutConfig(StrictModel):
    """Measuring on held-out problems, before the first step, during and after the last."""

    num_problems: int = Field(512, ge=1)
    """Held-out problems asked at the start and at the end; the gate is decided on them."""
    num_problems_during: int = Field(128, ge=0)
    """Held-out problems asked while training; 0: none."""
    every_steps: int = Field(0, ge=0)
    """Steps between measurements while training; 0: none."""
    temperature: float = Field(0.0, ge=0, le=2)
    """0 answers greedily."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer."""


class CheckpointConfig(StrictModel):
    """When checkpoints are written and which are kept; the last one of a run always is."""

    every_steps: int = Field(0, ge=0)
    """Steps between checkpoints that are measured too, so that the best can be told; 0: none but the last."""
    every_seconds: float = Field(15.0, ge=0)
    """Seconds between checkpoints that protect a run that is killed; writing takes at most 2 % of the time, so that large
    ones are rarer. 0: none, a killed run begins anew."""
    keep_last: int = Field(2, ge=1)
    """How many of the newest are kept."""
    keep_best: int = Field(1, ge=0)
    """How many of the best by `metric` are kept besides, of those that were measured."""
    metric: Literal["quality", "quality_low", "quality_high", "accuracy", "accuracy_low", "accuracy_high"] = "quality"
    """Key of the held-out measurement by which "best" is judged; higher is better."""


class TokenizerConfig(StrictModel):
    """Which tokenizer a new model gets; a run that starts from a checkpoint takes the checkpoint's."""

    kind: Literal["words", "byte_bpe"] = "words"
    """"words": one token a word, one a digit, from the dataset (small closed vocabularies). "byte_bpe": byte-level
    BPE trained on the dataset."""
    vocab_size: int = Field(2048, ge=300)
    """Target size of the byte-level BPE; not used by "words"."""


class RunConfig(StrictModel):
    """One phase run. The same object is the form's schema, the API's body, the stored row and the trainer's input."""

    phase: str
    """File name in model_core/phases."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of weights, order and sampling."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """Shape of a new model, or the name of a preset; a run that starts from a checkpoint takes the checkpoint's."""
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    """Tokenizer of a new model."""
    phase_config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the phase; see the phase's schema."""
    reward: RewardConfig = Field(default_factory=RewardConfig)
    """Reward components and weights; used by reinforcement, rejection sampling and the quality on held-out problems."""
    held_out: HeldOutConfig = Field(default_factory=HeldOutConfig)
    """Measurement on held-out problems."""
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    """Processes and how they share the work."""
    precision: PrecisionConfig = Field(default_factory=PrecisionConfig)
    """Number format and memory."""
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    """Limits of time, money and tokens."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """Writing and keeping checkpoints."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """What it has to reach."""
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)
    """The benchmark that the gate names, if it names one."""

    @field_validator("model", mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return preset(value)
        except ConfigError as error:
            raise ValueError(error.message) from error

    @classmethod
    def parse(cls, values: dict[str, Any], *, prefix: str = "") -> Self:
        """Validates and fills in the phase's own settings too. Raises ConfigError, or UnknownName for a wrong name."""
        from model_core.phases import PHASES
        from model_core.rewards import REWARDS

        config, where = super().parse(values, prefix=prefix), f"{prefix}." if prefix else ""
        phase = PHASES.get(config.phase, field=f"{where}phase")
        phase_config = phase.Config.parse(config.phase_config, prefix=f"{where}phase_config")
        reward = config.reward._with_settings(REWARDS, f"{where}reward")
        config = config.model_copy(update={"phase_config": phase_config.resolved(), "reward": reward})
        check_combination(config, phase, prefix=where)
        check_gate(config, prefix=where)
        if config.budget.dollars and not config.budget.dollars_per_device_hour:
            raise ConfigError("A budget in dollars needs the price of a device; say what an hour of it costs.",
                              field=f"{where}budget.dollars_per_device_hour")
        return config


class RunPaths(StrictModel):
    """Where a run's inputs lie on this machine; written by whoever makes the run directory, never by a user."""

    dataset: str | None = None
    """A prepared dataset directory (`dataset.json`, `train.jsonl`, `held_out.jsonl`)."""
    start_from: str | None = None
    """A checkpoint directory; empty: a new model."""
    rollouts_from: str | None = None
    """Checkpoint directory whose model generates the samples (rejection sampling), or teaches (on-policy distillation); empty:
    `start_from`."""
    student: str | None = None
    """Hugging Face directory of a dense model (Qwen2, Qwen3, Llama; safetensors) that distillation trains; empty: new weights of
    the shape in the phase's settings."""
    resume_from: str | None = None
    """Checkpoint directory of an earlier attempt of the same run: weights, optimizer, counters, random state."""
    benchmark: str | None = None
    """JSONL file of the benchmark that the gate names."""
