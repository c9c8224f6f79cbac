"""Owns one evaluation on its node: starts or adopts its process, tells how far it is, writes down how it ended.

It never runs inside a Celery task. A database that is away changes nothing: the process goes on, and so does the supervisor.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.functions import Now

from model_core.errors import ModelCoreError
from model_core.evaluation.benchmarks._types import Problem
from model_core.rundir import write_json
from r1platform.lib.leases import leases_of
from r1platform.lib.live import publish
from r1platform.lib.processes import ProcessRef, end_unrecorded, exit_code, is_alive, spawn, this_process
from r1platform.lib.tail import last_words
from r1platform.models import DeviceKind, DeviceLease
from training_app.evaluating import POLL_SECONDS, evaluation_end, holder_of
from training_app.evaluation_command import command_of, environment_of, questions_lay_out
from training_app.evaluation_dir import EvaluationDir
from training_app.models import Evaluation, EvaluationProblem
from training_app.states import EvaluationState
from training_app.transitions import evaluation_transition

logger = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
MAX_TRIES = 3
REFUSED = 2
"""Exit status of an error that the message explains: another try would say the same."""


class EvaluationSupervisor:
    """Owns one start of one evaluation until it has ended or another supervisor has taken over."""

    def __init__(self, evaluation_id: int) -> None:
        self.row = Evaluation.objects.filter(pk=evaluation_id)
        self.directory = EvaluationDir(evaluation_id)
        self.me = this_process()
        self._beat_due = 0.0
        self._ref: ProcessRef | None = None

    def run(self) -> None:
        """Takes the row, follows its process to the end, writes down how it ended, and frees its device."""
        free = self.row.filter(state=EvaluationState.RUNNING, pid=None)
        if not free.update(pid=self.me.pid, process_started_at=self.me.started_at, heartbeat_at=Now()):
            return
        self.evaluation = self.row.select_related("project", "checkpoint__run", "checkpoint__attempt").get()
        try:
            self._own()
        except (ModelCoreError, OSError) as error:
            self._end(EvaluationState.FAILED, str(error))
        finally:
            if not evaluation_end(self.evaluation, self._ref):
                logger.error("%s: its processes cannot be ended; its device stays held.", self.evaluation)

    def _own(self) -> None:
        problems, sha256 = questions_lay_out(self.evaluation, self.directory)
        self.row.filter(pid=self.me.pid).update(num_problems=len(problems), data_sha256=sha256)
        ref = self._adopted()
        if ref is None:
            self.directory.result.unlink(missing_ok=True)
        for _try in range(MAX_TRIES):
            ref = ref or self._start()
            if not self._follow(ref):
                return
            result = self.directory.read_result()
            if result is not None:
                self._finish(result, problems)
                return
            if exit_code(ref) == REFUSED and (sentence := self.directory.refusal()):
                self._end(EvaluationState.FAILED, sentence)
                return
            ref = None
        self._end(EvaluationState.FAILED, f"It died {MAX_TRIES} times.\n{last_words(self.directory.log)}".strip())

    def _adopted(self) -> ProcessRef | None:
        """The process of a supervisor that died; ended or not, its result counts."""
        row = self.evaluation
        if row.child_pid is None or row.child_started_at is None:
            return None
        self._ref = ProcessRef(row.child_pid, row.child_started_at, row.boot_id)
        return self._ref

    def _start(self) -> ProcessRef:
        end_unrecorded(self.directory.path)
        gpus = [lease.device.index for lease in leases_of(holder_of(self.evaluation)) if lease.device.kind == DeviceKind.CUDA]
        argv = command_of(self.evaluation, self.directory)
        write_json(self.directory.path / "command.json", {"argv": argv})
        env = environment_of(self.evaluation, self.directory, gpus=gpus)
        self._ref = ref = spawn(argv, cwd=Path(settings.BASE_DIR), env=env, log=self.directory.log)
        self.row.filter(pid=self.me.pid).update(child_pid=ref.pid, child_started_at=ref.started_at, boot_id=ref.boot_id)
        return ref

    def _follow(self, ref: ProcessRef) -> bool:
        """Waits for the process; False when the evaluation was stopped or taken over."""
        while is_alive(ref):
            try:
                if not self._beat():
                    return False
            except (OperationalError, InterfaceError) as error:
                logger.warning("The database is away: %s. The evaluation goes on.", error)
                connection.close()
            time.sleep(POLL_SECONDS)
        return True

    def _beat(self) -> bool:
        """Writes heartbeat and progress every second; False when the evaluation is not ours any more."""
        if time.monotonic() < self._beat_due:
            return True
        self._beat_due = time.monotonic() + BEAT_SECONDS
        mine = self.row.filter(state=EvaluationState.RUNNING, pid=self.me.pid, process_started_at=self.me.started_at)
        done = self.directory.num_done()
        if not mine.update(heartbeat_at=Now(), num_done=done):
            return False
        publish(f"overview.{self.evaluation.project_id}", "evaluation", evaluation=self.evaluation.pk, done=done)
        return True

    def _finish(self, result: dict[str, Any], problems: list[Problem]) -> None:
        judged = result.pop("problems")
        if result["accuracy"] is None:
            reasons = "; ".join(f"{reason} ({num} times)" for reason, num in list(result["unscored_reasons"].items())[:3])
            self._end(EvaluationState.FAILED, f"Nothing could be scored: {reasons or 'no completion was given'}.")
            return
        words = f"{result['accuracy']:.1%} of {result['num_problems']} problems right."
        self._end(
            EvaluationState.SUCCEEDED, words.replace("%", "\u202f%"), rows=self._rows(judged, problems), result=result,
            accuracy=result["accuracy"], num_done=len(judged), num_problems=len(problems),
        )  # fmt: skip

    def _rows(self, judged: list[dict[str, Any]], problems: list[Problem]) -> list[EvaluationProblem]:
        prompts, places = {problem.row: problem.prompt for problem in problems}, self.directory.places()
        made = []
        for one in judged:
            samples, place = one["samples"], places.get(one["row"])
            made.append(EvaluationProblem(
                evaluation=self.evaluation, row=one["row"], prompt=prompts[one["row"]].replace("\x00", ""),
                expected=one["expected"], answer=one["answer"] or "", correct=one["correct"], accuracy=one["accuracy"],
                samples=samples,
                no_answer=sum(sample["answer"] is None and sample["correct"] is not None for sample in samples),
                truncated=sum(sample["finish_reason"] == "length" for sample in samples),
                at_byte=place[0] if place else None, num_bytes=place[1] if place else 0,
            ))  # fmt: skip
        return made

    def _end(self, to: str, reason: str, *, rows: list[EvaluationProblem] | None = None, **fields: Any) -> None:
        """The last word, unless it was stopped or taken over meanwhile."""
        with transaction.atomic():
            mine = self.row.select_for_update(of=("self",)).filter(state=EvaluationState.RUNNING, pid=self.me.pid)
            if mine.exists():
                EvaluationProblem.objects.filter(evaluation=self.evaluation).delete()
                EvaluationProblem.objects.bulk_create(rows or [], batch_size=200)
                fields["device_seconds"] = _held_seconds(self.evaluation)
                evaluation_transition(evaluation=self.evaluation, to=to, reason=reason, fields=fields)


def _held_seconds(evaluation: Evaluation) -> float:
    """Device-seconds of all its starts, by what it held."""
    now = DeviceLease.objects.filter(holder__startswith=f"{holder_of(evaluation).partition('.')[0]}.").annotate(now=Now())
    return sum(((lease.released_at or lease.now) - lease.claimed_at).total_seconds() for lease in now)
