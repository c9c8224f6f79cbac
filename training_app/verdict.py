"""What the end of an attempt means for its run: passed, held, failed, stopped, paused, or tried again.

`attempt_finish` is the only writer of ends. It is one transaction under the supervisor's fence: a supervisor that dies
before it commits leaves a dead trainer and a result.json, from which the next one comes to the same end.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from r1platform.lib.jsonb import jsonb_clean
from r1platform.lib.leases import leases_release
from r1platform.lib.storage import run_dir
from r1platform.lib.tail import last_words
from training_app.asking import ask_to_schedule
from training_app.budgets import has_budget_left
from training_app.gates import gate_decide
from training_app.ingest import device_seconds_of
from training_app.models import PhaseRun, RunAttempt
from training_app.scheduling import holder_of
from training_app.states import AttemptState, Desired, GateAction, GateVerdict, RunState
from training_app.transitions import attempt_transition, run_transition

logger = logging.getLogger(__name__)
MAX_CRASHES = 3
"""Attempts in a row that may die without a result before the run has failed."""
MAX_REPEATS = 3
"""Measurements below the gate before a phase with the action "retry" is held."""


@dataclass(frozen=True)
class _End:
    attempt: str
    run: str
    reason: str
    fields: dict[str, Any]


@transaction.atomic
def attempt_finish(
    attempt: RunAttempt, *, fence: int, result: dict[str, Any] | None, how: str, exit_code: int | None = None,
    proven: bool = True,
) -> None:  # fmt: skip
    """Writes the end of the attempt and of its run, and frees the devices when every process is proven gone.

    `result` is result.json, None when the trainer did not get there; `how` says how the process ended. Raises StaleFence.
    """
    result = jsonb_clean(result)
    run = PhaseRun.objects.select_for_update(of=("self",)).get(pk=attempt.run_id)
    run.device_seconds = max(run.device_seconds, device_seconds_of(run.attempts.all()))
    end = _decide(run, attempt, result, how)
    attempt_transition(
        attempt=attempt,
        to=end.attempt,
        reason=end.reason,
        fence=fence,
        fields={"result": result, "exit_code": exit_code},
    )
    if proven:
        leases_release(holder=holder_of(attempt))
    if run.state == RunState.STARTING and end.run in {RunState.SUCCEEDED, RunState.GATE_FAILED}:
        run_transition(run=run, to=RunState.RUNNING, reason=f"Attempt {attempt.number} trains.")
    run_transition(run=run, to=end.run, reason=end.reason, fields={**end.fields, "device_seconds": run.device_seconds})
    ask_to_schedule()


def _decide(run: PhaseRun, attempt: RunAttempt, result: dict[str, Any] | None, how: str) -> _End:
    if result is None:
        return _crashed(run, attempt, how)
    if _is_crash(result):
        return _crashed(run, attempt, result["error"]["message"])
    status = result.get("status")
    if status == "succeeded":
        return _measured(run, result)
    if status == "stopped":
        return _stopped(run, result)
    error = result.get("error") or {}
    message = error.get("message") or result.get("reason") or how
    return _End(AttemptState.FAILED, RunState.FAILED, message, {"result": result, "progress": {}})


def _measured(run: PhaseRun, result: dict[str, Any]) -> _End:
    decision = gate_decide(run, result)
    said = f"{decision.reason}{_ended_early(result)}"
    fields: dict[str, Any] = {
        "result": result, "gate_verdict": decision.verdict, "gate_measured": decision.measured, "progress": {},
    }  # fmt: skip
    if decision.verdict != GateVerdict.HELD:
        return _End(AttemptState.SUCCEEDED, RunState.SUCCEEDED, said, fields)
    if run.gate_action == GateAction.GO_ON:
        reason = f"{said} The pipeline goes on, as this gate is set to."
        return _End(AttemptState.SUCCEEDED, RunState.SUCCEEDED, reason, fields)
    repeats = run.attempts.filter(state=AttemptState.SUCCEEDED).count() + 1
    may_repeat = repeats < MAX_REPEATS and run.desired == Desired.RUN
    if run.gate_action == GateAction.RETRY and may_repeat and has_budget_left(run, device_seconds=run.device_seconds):
        reason = f"{said} It is run again with the next seed, {repeats + 1} of {MAX_REPEATS}."
        fields["gate_verdict"] = GateVerdict.PENDING
        return _End(AttemptState.SUCCEEDED, RunState.QUEUED, reason, fields)
    return _End(AttemptState.SUCCEEDED, RunState.GATE_FAILED, said, fields)


def _ended_early(result: dict[str, Any]) -> str:
    """Why it ended before its last step, as a further sentence; empty when it did not."""
    match result.get("ended_by"):
        case "gate":
            return f" It ended early. {result.get('reason', '')}"
        case "budget":
            return f" Its budget ended it: {result.get('reason', '')}."
    return ""


def _stopped(run: PhaseRun, result: dict[str, Any]) -> _End:
    step = f"at step {result.get('steps', 0)}"
    if run.desired == Desired.PAUSE:
        return _End(
            AttemptState.STOPPED, RunState.PAUSED, f"Paused {step}; its checkpoint is kept.{_asked(run)}", {"result": result}
        )
    if run.desired == Desired.STOP:
        return _End(
            AttemptState.STOPPED, RunState.STOPPED, f"Stopped {step}; its checkpoint is kept.{_asked(run)}", {"result": result}
        )
    asked = str(result.get("reason") or "It was asked to stop.")
    reason = f"{asked} Its checkpoint {step} is kept; it goes on from there when a device is free."
    return _End(AttemptState.STOPPED, RunState.QUEUED, reason, {})


def _asked(run: PhaseRun) -> str:
    """Who asked for the end, and why, as a further sentence."""
    last = run.transitions.filter(after=RunState.STOPPING, user__isnull=False).order_by("-id").first()
    return f" {last.reason}" if last is not None else ""


def _is_crash(result: dict[str, Any] | None) -> bool:
    """Whether a trainer, or one of its ranks, died without saying why: that is worth another try."""
    return result is None or (result.get("error") or {}).get("type") == "RankEnded"


def _crashed(run: PhaseRun, attempt: RunAttempt, how: str) -> _End:
    """The trainer died. People who asked for an end get one; else it is tried again a few times."""
    log = run_dir(attempt.run_id, attempt.number) / "stdout.log"
    words = f"{how}\n{last_words(log)}".strip()
    if run.desired == Desired.STOP:
        return _End(AttemptState.FAILED, RunState.STOPPED, f"Stopped, though not in order: {words}", {})
    if run.desired == Desired.PAUSE:
        return _End(AttemptState.FAILED, RunState.PAUSED, f"Paused, though not in order: {words}", {})
    crashes = 1
    for before in run.attempts.filter(number__lt=attempt.number).order_by("-number"):
        if before.state != AttemptState.FAILED or not _is_crash(before.result):
            break
        crashes += 1
    if crashes < MAX_CRASHES:
        reason = f"{how} It is tried again from its last checkpoint ({crashes} of {MAX_CRASHES - 1})."
        return _End(AttemptState.FAILED, RunState.QUEUED, reason, {})
    reason = f"{words}\nIt died {crashes} times in a row; see its log."
    return _End(AttemptState.FAILED, RunState.FAILED, reason, {"progress": {}})
