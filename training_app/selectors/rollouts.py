"""Stored rollouts of a run: one step, one prompt over the steps, and what the components of the reward say together."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import combinations_with_replacement, islice
from pathlib import Path
from typing import Any

from model_core.errors import DataError
from r1platform.lib.storage import UnsafePath, open_artifact, run_dir
from training_app.models import PhaseRun, RunEvent
from training_app.selectors.reward_readings import (
    KEPT,
    Change,
    StepScores,
    changes_of,
    columns_of,
    correlation,
    reweighed,
    scores_of,
)

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

    `correlation` is a matrix over `names`, None where a column is constant. Without `weights` those of the run count. Of a long
    reading `num_left` steps may be left for the next one: what was read is kept.
    """
    asked = dict(weights if weights is not None else run.config.get("reward", {}).get("weights", {}))
    found, num_left = _scores(run, _spaced(run))
    told, changes = [], {}
    for at, scores in found.items():
        one, before, after = reweighed(scores, asked)
        told.append({"step": at, **one})
        changes[at] = changes_of(before, after)[:2]
    columns = columns_of(list(found.values()))
    components = sorted({name for scores in found.values() for name in scores.components})
    if unknown := [name for name, weight in asked.items() if weight and told and name not in components]:
        sentence = f"{', '.join(unknown)} scored none of the stored rollouts; there are {', '.join(components)}."
        raise DataError(f"{sentence} A new component is asked by `python -m model_core rescore`.", field="weights")
    together = {(a, b): correlation(columns[a], columns[b]) for a, b in combinations_with_replacement(columns, 2)}
    return {
        "weights": asked, "components": components, "names": list(columns),
        "correlation": [[together.get((a, b), together.get((b, a))) for b in columns] for a in columns],
        "steps": told, "examples": _examples(run, changes), "num_rollouts": sum(one["num_rollouts"] for one in told),
        "num_steps": len(run_rollout_steps(run)), "num_left": num_left, "pairs": _pairs(together),
    }  # fmt: skip


def _scores(run: PhaseRun, steps: list[int]) -> tuple[dict[int, StepScores], int]:
    """The numbers of each step, and how many steps are left when time is up: those that are not kept have to be read."""
    until, found = time.monotonic() + MAX_SECONDS, {}
    left = list(_events(run, steps).items())
    while left and time.monotonic() <= until:
        step, event = left.pop(0)
        with suppress(DataError):
            path = _path(run, event)
            told = path.stat()
            key = (path, told.st_size, told.st_mtime_ns)
            found[step] = KEPT(key, lambda event=event: scores_of(_read(run, event, _parsed)))  # type: ignore[misc]
    return found, len(left)


def _examples(run: PhaseRun, changes: Mapping[int, list[Change]]) -> list[dict[str, Any]]:
    """What was said where another completion would be the best, the newest steps first."""
    newest = sorted((step for step, found in changes.items() if found), reverse=True)[:MAX_EXAMPLES]
    told: list[dict[str, Any]] = []
    for step, event in reversed(_events(run, newest).items()):
        if len(told) < MAX_EXAMPLES:
            with suppress(DataError):
                told += _texts(step, changes[step], _read(run, event, _lines_of({one.group for one in changes[step]})))
    return told[:MAX_EXAMPLES]


def _lines_of(wanted: set[int]) -> Callable[[Iterator[str]], Groups]:
    return lambda lines: [json.loads(line) for place, line in enumerate(lines) if place in wanted]


def _texts(step: int, changes: list[Change], groups: Groups) -> list[dict[str, Any]]:
    by_place = dict(zip(sorted({one.group for one in changes}), groups, strict=True))

    def text(one: Change, place: int) -> str:
        return str(by_place[one.group]["completions"][place]["text"])

    return [
        {"step": step, "prompt": by_place[one.group]["prompt"], "was": {"text": text(one, one.was), **one.was_told},
         "now": {"text": text(one, one.now), **one.now_told}} for one in changes
    ]  # fmt: skip


def _pairs(together: Mapping[tuple[str, str], float | None]) -> list[dict[str, Any]]:
    """The five pairs that go together most, either way."""
    told = sorted((-abs(r), a, b, r) for (a, b), r in together.items() if a != b and r is not None)
    return [{"a": a, "b": b, "r": r} for _, a, b, r in told[:5]]


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
    for step, event in _events(run, steps).items():
        if time.monotonic() > until:
            return
        with suppress(DataError):
            yield step, _read(run, event, take)


def _events(run: PhaseRun, steps: list[int]) -> dict[int, RunEvent]:
    """The newest that tells of each step's rollouts, in order."""
    told = RunEvent.objects.filter(run=run, kind="rollouts", payload__step__in=steps).select_related("attempt").order_by("pk")
    found = {int(event.payload["step"]): event for event in told}
    return {step: found[step] for step in sorted(found)}


def _event(run: PhaseRun, step: int) -> RunEvent | None:
    """The newest that tells of a step's rollouts."""
    return RunEvent.objects.filter(run=run, kind="rollouts", payload__step=step).select_related("attempt").order_by("-pk").first()


def _path(run: PhaseRun, event: RunEvent) -> Path:
    """The file of a step. Raises DataError."""
    try:
        return open_artifact(run_dir(run.pk, event.attempt.number), event.payload["file"])
    except (FileNotFoundError, UnsafePath):
        raise DataError(f"The rollouts of step {event.payload['step']} are not on this machine any more.", field="step") from None


def _read(run: PhaseRun, event: RunEvent, take: Callable[[Iterator[str]], Groups]) -> Groups:
    """What `take` makes of the lines of a step. Raises DataError."""
    path = _path(run, event)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return take(_limited(file))
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"The file of step {event.payload['step']}'s rollouts is damaged: {error}.", field="step") from error


def _limited(lines: Iterator[str]) -> Iterator[str]:
    size = 0
    for line in lines:
        size += len(line)
        if size > MAX_ROLLOUT_BYTES:
            return
        yield line
