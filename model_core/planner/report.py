"""The plan of one model or run: everything that the planner can tell, gathered, as JSON. `table` makes it readable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from model_core.config import ParallelConfig, RunConfig
from model_core.errors import ConfigError
from model_core.planner.cost import Cost, Throughput, cost_of_tokens, from_peak, stated
from model_core.planner.devices import Device, Fleet
from model_core.planner.flops import Flops, flops
from model_core.planner.memory import BYTES, Memory, Work, cache_bytes, memory
from model_core.planner.parameters import Parameters, Shape, count_parameters, parameters
from model_core.planner.search import Fit, Found, smallest_layout
from model_core.planner.seconds import Lengths, Rates, StepSeconds, step_seconds
from model_core.planner.serving import Load, Need, ServedModel, need
from model_core.planner.units import in_bytes


@dataclass(frozen=True)
class Question:
    """What is planned: a run whose model is `shape`, on which devices, over how many tokens, at what speed and price."""

    config: RunConfig
    shape: Shape
    work: Work
    sequence_tokens: int
    rows: int = 16
    fleet: Fleet | None = None
    has_layout: bool = True
    """Whether the run says its own layout; else the smallest that fits is taken."""
    tokens: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    price: float | None = None
    rates: Rates | None = None
    lengths: Lengths | None = None
    """Of prompts and answers, where a step is to be timed by `rates`."""


@dataclass(frozen=True)
class Plan:
    """The answers. `found` is None where no devices were named, `step` where no rates were, `cost` where no tokens were."""

    question: Question
    parameters: Parameters
    active: int
    parallel: ParallelConfig
    memory: Memory
    flops: Flops
    serving: Need
    found: Found | None
    step: StepSeconds | None
    throughput: Throughput | None
    cost: Cost | None

    @property
    def reasons(self) -> list[str]:
        """Why fewer devices than those of the smallest layout do not do, a sentence each."""
        fleet = self.question.fleet
        if self.found is None or fleet is None:
            return []
        return [_why(fit, fleet.device) for fit in self.found.too_small]

    def as_json(self) -> dict[str, Any]:
        """All of it, numbers in bytes, FLOPs and seconds."""
        question = self.question
        return {
            "parameters": {"total": self.parameters.total, "active": self.active, **self.parameters.by_part()},
            "layout": self.parallel.resolved(),
            "precision": question.config.precision.resolved(),
            "work": asdict(question.work) | {"sequence_tokens": question.sequence_tokens},
            "memory": {
                "peak": self.memory.peak.name, "total": self.memory.peak.total, "host": self.memory.host_bytes,
                "moments": {moment.name: moment.parts | {"total": moment.total} for moment in self.memory.moments},
            },
            "cache_bytes_per_token": cache_bytes(question.shape, BYTES[_serving_dtype(question.config)]),
            "engine": {
                "weights": self.serving.weights, "cache": self.serving.cache, "total": self.serving.most, "rows": question.rows,
            },
            "flops_per_token": asdict(self.flops),
            "step": asdict(self.step) | {"seconds": self.step.total} if self.step else None,
            "throughput": asdict(self.throughput) if self.throughput else None,
            "cost": asdict(self.cost) if self.cost else None,
            "smallest": self._smallest(),
        }  # fmt: skip

    def _smallest(self) -> dict[str, Any] | None:
        if self.found is None or self.question.fleet is None:
            return None
        fit, fleet = self.found.fit, self.question.fleet
        return {
            "device": asdict(fleet.device) | {"usable_bytes": fleet.device.usable_bytes}, "count": fleet.count,
            "is_here": fit is not None and fit.parallel.num_processes <= fleet.count,
            "layout": fit.parallel.resolved() if fit else None,
            "bytes": fit.memory.peak.total if fit else None, "smaller_do_not_fit": self.reasons,
        }  # fmt: skip


def plan(question: Question) -> Plan:
    """Answers `question`. Raises ConfigError for what contradicts itself or cannot be laid out."""
    found = _search(question)
    parallel, needed = _layout(question, found)
    per_token = flops(question.shape, question.sequence_tokens, checkpointing=question.config.precision.gradient_checkpointing)
    step = _step(question)
    throughput = _throughput(question, per_token, parallel.num_processes, step)
    return Plan(
        question=question, parameters=parameters(question.shape), active=count_parameters(question.shape)[1],
        parallel=parallel, memory=needed, flops=per_token, found=found, step=step, throughput=throughput,
        serving=need(
            ServedModel.of(question.shape),
            Load(BYTES[_serving_dtype(question.config)], rows=question.rows, tokens=question.sequence_tokens),
        ),
        cost=_cost(question, throughput, parallel.num_processes),
    )  # fmt: skip


def _search(question: Question) -> Found | None:
    """Among the devices that there are; where none of their layouts fits, beyond them, to say how many would do."""
    fleet = question.fleet
    if fleet is None:
        return None
    found = smallest_layout(question.config, question.shape, question.work, fleet.device, count=fleet.count)
    return found if found.fit else smallest_layout(question.config, question.shape, question.work, fleet.device)


def _layout(question: Question, found: Found | None) -> tuple[ParallelConfig, Memory]:
    if found and not question.has_layout:
        fit = found.fit or found.too_small[-1]
        return fit.parallel, fit.memory
    parallel = question.config.parallel
    return parallel, memory(question.shape, parallel, question.config.precision, question.work)


def _step(question: Question) -> StepSeconds | None:
    if question.rates is None:
        return None
    if question.lengths is None:
        raise ConfigError("The seconds of a step hang on lengths, which only the data knows: give prompt_tokens and answer_tokens.",
                          field="prompt_tokens")
    return step_seconds(question.config, question.shape, question.lengths, question.rates)


def _throughput(question: Question, per_token: Flops, num_devices: int, step: StepSeconds | None) -> Throughput | None:
    if question.tokens_per_second is not None and question.mfu is not None:
        raise ConfigError("Give either tokens_per_second, which was measured, or mfu, a share of the peak.", field="mfu")
    if step is not None:
        if question.tokens_per_second is not None or question.mfu is not None:
            raise ConfigError("The calibration tells the throughput; leave tokens_per_second and mfu out.", field="calibration")
        return Throughput(step.tokens / step.total, f"predicted by rates of {step.source}")
    if question.tokens_per_second is not None:
        return stated(question.tokens_per_second)
    if question.mfu is None:
        return None
    peak = question.fleet.device.peak_flops if question.fleet else None
    if peak is None:
        raise ConfigError(
            "mfu is a share of a peak that is not known; name devices that are, like 8xH200, or give tokens_per_second.",
            field="mfu",
        )
    return from_peak(peak, question.mfu, num_devices=num_devices, flops_per_token=per_token.training)


def _cost(question: Question, throughput: Throughput | None, num_devices: int) -> Cost | None:
    if question.tokens is None:
        if question.price is not None:
            raise ConfigError("A price needs something to buy: give tokens too.", field="price")
        return None
    if throughput is None:
        raise ConfigError("Time needs a throughput: give tokens_per_second, or mfu and devices.", field="tokens")
    return cost_of_tokens(question.tokens, throughput, num_devices=num_devices, hourly_price=question.price)


def _serving_dtype(config: RunConfig) -> str:
    return config.precision.dtype


def _why(fit: Fit, device: Device) -> str:
    peak, parallel = fit.memory.peak, fit.parallel
    largest = max(peak.parts, key=lambda name: peak.parts[name])
    return (
        f"{parallel.num_processes} × {device.name}: at best {in_bytes(peak.total)} of {in_bytes(device.usable_bytes)} usable, "
        f"{in_bytes(peak.parts[largest])} of them {largest} ({layout_words(parallel)})."
    )


def layout_words(parallel: ParallelConfig) -> str:
    """A layout in the settings' own names; those that are 1 are left out, and of one process there is nothing to say."""
    if parallel.num_processes == 1:
        return "one process"
    splits = [f"{name} {value}" for name in ("pipeline", "tensor", "expert") if (value := getattr(parallel, name)) > 1]
    return ", ".join([*splits, f"ZeRO {parallel.zero_stage}"])
