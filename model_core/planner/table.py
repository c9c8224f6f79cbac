"""A plan as text for a terminal: parts of a device by moment, then what else there is to say."""

from __future__ import annotations

from collections.abc import Iterator

from model_core.planner.dense import DenseModel
from model_core.planner.devices import USABLE_FRACTION
from model_core.planner.report import Plan, layout_words
from model_core.planner.seconds import WITHIN
from model_core.planner.units import in_bytes

LABEL_WIDTH, COLUMN_WIDTH = 22, 16
DAY, HOUR, MINUTE = 86400, 3600, 60


def table(plan: Plan) -> str:
    """The whole plan."""
    blocks = [_parameters(plan), _memory(plan), _engine(plan), _flops(plan), _cost(plan), _smallest(plan)]
    return "\n\n".join("\n".join(lines) for block in blocks if (lines := list(block)))


def _parameters(plan: Plan) -> Iterator[str]:
    yield _row("Parameters", f"{plan.parameters.total:,}")
    yield _row("  active for a token", f"{plan.active:,}")
    for name, number in plan.parameters.by_part().items():
        if number:
            yield _row(f"  {name}", f"{number:,}", "not in the total" if name == "next_token" else "")


def _memory(plan: Plan) -> Iterator[str]:
    work, precision = plan.question.work, plan.question.config.precision
    recomputed = ", recomputed" if precision.gradient_checkpointing else ""
    yield (
        f"Memory of a device, of {plan.parallel.num_processes} ({layout_words(plan.parallel)}, {precision.dtype}, passes of "
        f"{work.micro_tokens} tokens{recomputed}, {work.optimizer})"
    )
    moments = plan.memory.moments
    yield _row("", *(moment.name for moment in moments))
    for name in dict.fromkeys(name for moment in moments for name in moment.parts):
        yield _row(f"  {name}", *(in_bytes(moment.parts.get(name, 0)) for moment in moments))
    yield _row("  together", *(in_bytes(moment.total) for moment in moments))
    if plan.memory.host_bytes:
        yield _row("  on the CPU besides", in_bytes(plan.memory.host_bytes))


def _engine(plan: Plan) -> Iterator[str]:
    question = plan.question
    yield f"An engine that serves {question.rows} completions of {question.sequence_tokens} tokens"
    yield _row("  weights", in_bytes(plan.serving.weights))
    yield _row("  cache" if isinstance(question.shape, DenseModel) else "  latent cache", in_bytes(plan.serving.cache))


def _flops(plan: Plan) -> Iterator[str]:
    yield f"FLOPs of a token in sequences of {plan.question.sequence_tokens}"
    yield _row("  forward", f"{plan.flops.forward:.3e}", f"{plan.flops.attention / plan.flops.forward:.0%} of it attention")
    yield _row("  training", f"{plan.flops.training:.3e}")
    if plan.flops.recomputed:
        yield _row("  recomputed", f"{plan.flops.recomputed:.3e}")


def _cost(plan: Plan) -> Iterator[str]:
    if plan.step:
        parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in plan.step.parts.items())
        yield _row("A step", f"{plan.step.total:.3g} s", f"± {WITHIN:.0%}: {parts}")
    if plan.throughput:
        yield _row("Throughput", f"{plan.throughput.tokens_per_second:,.0f} tokens/s", plan.throughput.source)
    if plan.cost:
        yield _row("Time", _duration(plan.cost.seconds))
        yield _row("Device-hours", f"{plan.cost.device_hours:,.1f}")
        if plan.cost.price is not None:
            yield _row("Price", f"{plan.cost.price:,.2f}")


def _smallest(plan: Plan) -> Iterator[str]:
    fleet, found = plan.question.fleet, plan.found
    if fleet is None or found is None:
        return
    if found.fit is None:
        yield f"No layout fits any number of {fleet.device.name} that was tried."
    else:
        num, words = found.fit.parallel.num_processes, layout_words(found.fit.parallel)
        here = "" if num <= fleet.count else f", more than the {fleet.count} there are"
        each = in_bytes(found.fit.memory.peak.total)
        yield f"Smallest layout that fits: {num} × {fleet.device.name}{here} ({words}), {each} each"
    yield f"  {USABLE_FRACTION:.0%} of a device's memory is planned with."
    yield from (f"  {reason}" for reason in plan.reasons)


def _row(label: str, *values: str) -> str:
    return (f"{label:<{LABEL_WIDTH}}" + "".join(f"{value:>{COLUMN_WIDTH}}  " for value in values)).rstrip()


def _duration(seconds: float) -> str:
    for name, size in (("days", DAY), ("hours", HOUR), ("minutes", MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} seconds"
