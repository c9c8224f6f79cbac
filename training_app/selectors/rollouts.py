"""Stored rollouts of a run: one step, one prompt over the steps, and what the components of the reward say together."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import combinations, islice
from statistics import StatisticsError, correlation
from typing import Any

from model_core.errors import DataError
from model_core.rescoring import best, reweigh
from r1platform.lib.storage import UnsafePath, open_artifact, run_dir
from training_app.models import PhaseRun, RunEvent

MAX_ROLLOUT_BYTES = 32 << 20
"""Of one step."""
MAX_STEPS = 200
"""Steps that a question over the whole run reads; of more it takes so many, evenly spaced."""
MAX_SECONDS = 4.0
"""After which such a question answers with what it has read."""
MAX_EXAMPLES = 6
Groups = list[dict[str, Any]]


def run_rollout_steps(run: PhaseRun) -> list[int]:
    """Steps whose rollouts were kept, in order."""
    steps = RunEvent.objects.filter(run=run, kind="rollouts").values_list("payload__step", flat=True)
    return sorted({int(step) for step in steps})


def run_rollouts(run: PhaseRun, *, step: int | None = None) -> dict[str, Any]:
    """The groups of one step (the newest when not given) and which steps there are. Raises DataError."""
    steps = run_rollout_steps(run)
    if not steps:
        return {"step": None, "steps": [], "groups": []}
    wanted = steps[-1] if step is None else step
    event = _event(run, wanted)
    if event is None:
        raise DataError(
            f"Step {wanted} has no rollouts; there are those of steps {steps[0]} to {steps[-1]}.", field="step"
        )
    return {"step": wanted, "steps": steps, "groups": _read(run, event, _parsed)}


def run_example(run: PhaseRun) -> dict[str, str]:
    """A prompt and an answer of the newest step, as an example; empty where there is none."""
    steps = run_rollout_steps(run)
    event = _event(run, steps[-1]) if steps else None
    try:
        groups = _read(run, event, lambda lines: [json.loads(line) for line in islice(lines, 1)]) if event else []
    except DataError:
        return {}
    return {"prompt": groups[0]["prompt"], "completion": groups[0]["completions"][0]["text"]} if groups else {}


def run_prompt(run: PhaseRun, *, step: int, group: int) -> dict[str, Any]:
    """The prompt of one group, and what was sampled for it at every step that asked it: `found` has step and group.

    `num_read` of `num_steps` steps were read. Raises DataError at `step` or `group`.
    """
    groups = run_rollouts(run, step=step)["groups"]
    if not 0 <= group < len(groups):
        raise DataError(f"Step {step} has {len(groups)} stored groups, counted from 0; there is no group {group}.", field="group")
    prompt = groups[group]["prompt"]
    begin = f'{{"prompt": {json.dumps(prompt, ensure_ascii=False)}, '

    def asking(lines: Iterator[str]) -> Groups:
        """Lines are written with the prompt first: most are passed over without reading them as JSON."""
        return [found for line in lines if line.startswith(begin) and (found := json.loads(line))["prompt"] == prompt]

    steps, num_steps, found = _spaced(run, include=step), len(run_rollout_steps(run)), []
    num_read = 0
    for at, read in _reading(run, steps, asking):
        num_read += 1
        found += [{"step": at, "group": one} for one in read]
    return {"prompt": prompt, "answer": groups[group].get("answer"), "found": found, "num_read": num_read, "num_steps": num_steps}


def run_rewards(run: PhaseRun, *, weights: Mapping[str, float] | None = None) -> dict[str, Any]:
    """How the components go together over the stored rollouts, and what each step would be worth under other weights.

    `correlation` is a matrix over `names`, None where a column is constant. Without `weights` those of the run count.
    """
    asked = dict(weights if weights is not None else run.config.get("reward", {}).get("weights", {}))
    columns: dict[str, list[float | None]] = {}
    steps: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    num_rollouts = 0
    for at, groups in _reading(run, _spaced(run), _parsed):
        for group in groups:
            for one in group["completions"]:
                _collect(columns, one, num_rollouts)
                num_rollouts += 1
        told = reweigh(groups, asked)
        examples = (_changed(at, told.pop("groups")) + examples)[:MAX_EXAMPLES]
        steps.append({"step": at, **told})
    components = sorted(set(columns) - {"length", "correct"})
    if unknown := [name for name, weight in asked.items() if weight and steps and name not in components]:
        sentence = f"{', '.join(unknown)} scored none of the stored rollouts; there are {', '.join(components)}."
        raise DataError(f"{sentence} A new component is asked by `python -m model_core rescore`.", field="weights")
    names = [name for name in [*components, "correct", "length"] if any(value is not None for value in columns.get(name, ()))]
    return {
        "weights": asked, "components": components, "names": names,
        "correlation": [[_correlation(columns[a], columns[b]) for b in names] for a in names],
        "steps": steps, "examples": examples, "num_rollouts": num_rollouts, "num_steps": len(run_rollout_steps(run)),
        "pairs": _pairs({name: columns[name] for name in names}),
    }  # fmt: skip


def _collect(columns: dict[str, list[float | None]], one: Mapping[str, Any], before: int) -> None:
    """Adds a completion to the columns; one that a column had nothing of before is a hole in it."""
    found = {**(one.get("components") or {}), "length": one.get("num_tokens"), "correct": one.get("correct")}
    for name in dict.fromkeys([*columns, *found]):
        column = columns.setdefault(name, [None] * before)
        value = found.get(name)
        column.append(float(value) if isinstance(value, int | float) else None)


def _correlation(a: list[float | None], b: list[float | None]) -> float | None:
    """Pearson's, over the rollouts that have both; None where there is none."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    try:
        return round(correlation([x for x, _ in pairs], [y for _, y in pairs]), 4)
    except StatisticsError:
        return None


def _pairs(columns: Mapping[str, list[float | None]]) -> list[dict[str, Any]]:
    """The five pairs that go together most, either way."""
    found = [(a, b, _correlation(columns[a], columns[b])) for a, b in combinations(columns, 2)]
    told = sorted([(abs(r), a, b, r) for a, b, r in found if r is not None], key=lambda one: -one[0])
    return [{"a": a, "b": b, "r": r} for _, a, b, r in told[:5]]


def _changed(step: int, groups: Groups) -> list[dict[str, Any]]:
    """Groups in which another completion would be the best, those with the widest gap first."""
    found = []
    for group in groups:
        was, now = best(group, "before"), best(group, "after")
        if was is not None and now is not None and was != now:
            old, new = group["completions"][was], group["completions"][now]
            found.append({"step": step, "prompt": group["prompt"], "was": old, "now": new})
    return sorted(found, key=lambda one: (one["was"]["after"] or 0) - (one["now"]["after"] or 0))[:2]


def _parsed(lines: Iterator[str]) -> Groups:
    return [json.loads(line) for line in lines]


def _spaced(run: PhaseRun, *, include: int | None = None) -> list[int]:
    """The steps to read, at most MAX_STEPS, evenly spaced, the first and the last and `include` among them."""
    steps = run_rollout_steps(run)
    if len(steps) <= MAX_STEPS:
        return steps
    places = {round(number * (len(steps) - 1) / (MAX_STEPS - 1)) for number in range(MAX_STEPS)}
    return sorted({*(steps[place] for place in places), *([] if include is None else [include])})


def _reading(run: PhaseRun, steps: list[int], take: Callable[[Iterator[str]], Groups]) -> Iterator[tuple[int, Groups]]:
    """Each step with what `take` makes of its lines, while there is time; steps whose file is away are left out."""
    until = time.monotonic() + MAX_SECONDS
    told = RunEvent.objects.filter(run=run, kind="rollouts", payload__step__in=steps).select_related("attempt").order_by("pk")
    events = {int(event.payload["step"]): event for event in told}
    for step in steps:
        if time.monotonic() > until:
            return
        with suppress(DataError):
            yield step, _read(run, events[step], take)


def _event(run: PhaseRun, step: int) -> RunEvent | None:
    """The newest that tells of a step's rollouts."""
    return RunEvent.objects.filter(run=run, kind="rollouts", payload__step=step).select_related("attempt").order_by("-pk").first()


def _read(run: PhaseRun, event: RunEvent, take: Callable[[Iterator[str]], Groups]) -> Groups:
    """What `take` makes of the lines of a step. Raises DataError."""
    step = event.payload["step"]
    try:
        path = open_artifact(run_dir(run.pk, event.attempt.number), event.payload["file"])
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return take(_limited(file))
    except (FileNotFoundError, UnsafePath):
        raise DataError(f"The rollouts of step {step} are not on this machine any more.", field="step") from None
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"The file of step {step}'s rollouts is damaged: {error}.", field="step") from error


def _limited(lines: Iterator[str]) -> Iterator[str]:
    size = 0
    for line in lines:
        size += len(line)
        if size > MAX_ROLLOUT_BYTES:
            return
        yield line
