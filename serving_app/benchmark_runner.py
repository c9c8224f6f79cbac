"""Runs one benchmark of a deployment: asks the engines of its revision level by level, keeps each level that was done.

The load is a loop in a thread of its own; this one tells how far it is, and looks once a second whether the benchmark is still
wanted and the same replicas still answer. The engines are asked as the gateway asks them, but not through it: it shares requests
out between revisions, and would book them on somebody's key.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.functions import Now

from model_core.errors import EngineError, ModelCoreError
from model_core.serving.load import Asked, Connection, Level, Target, run_level, spread, stream_body
from r1platform.lib.live import publish
from r1platform.lib.processes import this_process
from r1platform.lib.transitions import IllegalTransition
from serving_app.benchmark_plan import BenchmarkPlan, held_out_prompts, made_prompt, words_for
from serving_app.benchmarking import answering, hardware_of, kept_words
from serving_app.models import BenchmarkLevel, Deployment, DeploymentBenchmark, DeploymentRevision, Replica, UsageRecord
from serving_app.states import REPLICA_ENDS, BenchmarkState, DeploymentState, ReplicaState, RevisionState
from serving_app.transitions import benchmark_transition

logger = logging.getLogger(__name__)
T = TypeVar("T")
BEAT_SECONDS = 1.0
POLL_SECONDS = 0.05
FALL_SECONDS = 5.0
"""How long after an engine broke off its deployment has to say why."""
TRY_WORDS = (4, 12)
"""Lengths of the two requests before the first level, which tell how many tokens a word of a made prompt has."""
TRY_SECONDS = 60.0


NONE_ANSWERS = "No replica of the revision answers any more."


class _Over(Exception):
    """The benchmark is not ours to go on with: stopped, or ended by another."""


class BenchmarkRunner:
    """Owns one start of one benchmark; `run` returns when it has ended."""

    def __init__(self, benchmark_id: int) -> None:
        self.row = DeploymentBenchmark.objects.filter(pk=benchmark_id)
        self.me = this_process()
        self.done_before = 0
        self._beat_due = 0.0
        self._halt = threading.Event()

    def run(self) -> None:
        """Takes the row, measures every level, and writes down how it ended."""
        free = self.row.filter(state=BenchmarkState.RUNNING, pid=None)
        if not free.update(pid=self.me.pid, process_started_at=self.me.started_at, heartbeat_at=Now()):
            return
        self.benchmark = self.row.select_related("deployment", "revision", "dataset_version").get()
        self.plan = BenchmarkPlan.parse(self.benchmark.plan)
        try:
            self._measure()
        except _Over:
            logger.info("%s was ended from outside.", self.benchmark)
        except EngineError as error:
            self._end(BenchmarkState.FAILED, self._fallen(str(error)))
        except ModelCoreError as error:
            self._end(BenchmarkState.FAILED, str(error))

    def _measure(self) -> None:
        self.replicas = list(answering(self.benchmark.revision).select_related("node"))
        if not self.replicas:
            raise ModelCoreError(f"{NONE_ANSWERS} {self._deployment_words()}".strip())
        self._note(hardware=hardware_of(self.replicas))
        self.targets = [Target(replica.base_url, replica.engine_key) for replica in self.replicas]
        prompt = self._prompts()
        for concurrency in self.plan.concurrency:
            level = Level(concurrency, self.plan.requests_at(concurrency))
            self._run_level(level, prompt)
            self._keep(level)
        best = self.benchmark.levels.order_by("-tokens_per_second")[0]
        self._end(BenchmarkState.SUCCEEDED, f"At most {best.tokens_per_second:,.0f} tokens/s, at {best.concurrency} at once.")

    def _prompts(self) -> Callable[[int], str]:
        """The prompt of the nth request. Tries the engine first: what it refuses ends the benchmark in its own words."""
        version = self.benchmark.dataset_version
        if version is not None:
            rows = held_out_prompts(version)
            self._try(rows[0])
            return lambda number: rows[number % len(rows)]
        seed = self.benchmark.pk << 32
        counted = [(words, self._try(made_prompt(seed - words, words))) for words in TRY_WORDS]
        num_words = words_for(self.plan.prompt_tokens, counted)
        return lambda number: made_prompt(seed + number, num_words)

    def _try(self, prompt: str) -> int:
        """Tokens of a prompt, as the engine counts them."""
        target, body = self.targets[0], stream_body(self.benchmark.deployment.name, prompt, max_tokens=1, temperature=0.0)

        async def ask() -> Asked:
            connected = Connection(target)
            try:
                return await asyncio.wait_for(connected.ask(body), TRY_SECONDS)
            finally:
                connected.close()

        try:
            asked = self._in_thread(ask, progress=lambda: 0)
        except TimeoutError:
            raise ModelCoreError(f"The engine gave no token within {TRY_SECONDS:.0f} s. Look at its log.") from None
        if asked.error:
            raise ModelCoreError(f"The engine refuses: {asked.error}")
        return asked.prompt_tokens

    def _run_level(self, level: Level, prompt: Callable[[int], str]) -> None:
        """Has one level asked. Raises EngineError when an engine breaks off or other replicas answer."""
        self._note(level_now=level.concurrency)
        name, first = self.benchmark.deployment.name, self.done_before
        settings: dict[str, Any] = {"max_tokens": self.plan.answer_tokens, "temperature": 0.0}
        if self.plan.ignore_end:
            settings["ignore_eos"] = True

        def body(number: int) -> bytes:
            return stream_body(name, prompt(first + number), **settings)

        def ask() -> Coroutine[Any, Any, None]:
            return run_level(level, self.targets, body, seconds=self.plan.level_seconds)

        self._in_thread(ask, progress=lambda: level.num_ended)
        self.done_before += level.num_requests

    def _in_thread(self, work: Callable[[], Coroutine[Any, Any, T]], *, progress: Callable[[], int]) -> T:
        """Runs a loop in a thread and looks after the benchmark meanwhile; what the loop raises is raised here."""
        with ThreadPoolExecutor(1, thread_name_prefix="load") as threads:
            running = threads.submit(lambda: asyncio.run(self._unless_halted(work())))
            try:
                while not running.done():
                    self._beat(progress)
                    time.sleep(POLL_SECONDS)
            except BaseException:
                self._halt.set()
                raise
        return running.result()

    async def _unless_halted(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=POLL_SECONDS)
            if self._halt.is_set():
                task.cancel()
        return await task

    def _beat(self, progress: Callable[[], int]) -> None:
        """Writes heartbeat and progress once a second.

        Raises _Over when the benchmark is not wanted any more, EngineError when other replicas answer.
        """
        if time.monotonic() < self._beat_due:
            return
        self._beat_due, num_done = time.monotonic() + BEAT_SECONDS, self.done_before + progress()
        try:
            mine = self.row.filter(state=BenchmarkState.RUNNING, pid=self.me.pid, process_started_at=self.me.started_at)
            if not mine.update(heartbeat_at=Now(), num_done=num_done):
                raise _Over
            if why := self._changed():
                raise EngineError(why)
        except (OperationalError, InterfaceError) as error:
            logger.warning("The database is away: %s. The load goes on.", error)
            connection.close()
            return
        publish(f"overview.{self.benchmark.deployment.project_id}", "benchmark", benchmark=self.benchmark.pk, done=num_done)

    def _changed(self) -> str:
        """How the replicas that answer are not those that it began with; empty while they are."""
        now = set(answering(self.benchmark.revision).values_list("pk", flat=True))
        before = {replica.pk for replica in self.replicas}
        if now == before:
            return ""
        if not now:
            return NONE_ANSWERS
        return f"Other replicas answer than those that it began with: {len(now)} now, {len(before)} then."

    def _fallen(self, what: str) -> str:
        """Why an engine broke off, once its deployment knows it; else only that it did."""
        deadline = time.monotonic() + FALL_SECONDS
        while time.monotonic() < deadline and not (changed := self._patiently(self._changed)):
            time.sleep(POLL_SECONDS)
        return f"{changed or what} {self._patiently(self._deployment_words)}".strip()

    def _deployment_words(self) -> str:
        """What the deployment says of itself, its revision or a replica that fell; empty while all is well."""
        deployment = Deployment.objects.get(pk=self.benchmark.deployment_id)
        if deployment.deleted_at is not None:
            return "The deployment was deleted."
        fallen = Replica.objects.filter(pk__in=[replica.pk for replica in self.replicas], state__in=REPLICA_ENDS).first()
        if fallen is not None and fallen.state != ReplicaState.STOPPED:
            return f"Replica {fallen.number} is {fallen.get_state_display().lower()}. {fallen.state_reason}".strip()
        revision = DeploymentRevision.objects.get(pk=self.benchmark.revision_id)
        if revision.state in {RevisionState.RETIRED, RevisionState.ROLLED_BACK}:
            return f"{revision} is {revision.get_state_display().lower()}. {revision.state_reason}".strip()
        if deployment.state == DeploymentState.READY:
            return ""
        last = deployment.transitions.exclude(reason="").order_by("-id").first()
        said = last.reason if last is not None else deployment.state_reason
        return f"“{deployment.name}” is {deployment.get_state_display().lower()}. {said}".strip()

    def _keep(self, level: Level) -> None:
        """Writes one level down. Raises ModelCoreError when nobody was answered: there is nothing to go on with."""
        errors = Counter(asked.error for asked in level.asked if asked.error)
        whole = [asked for asked in level.asked if asked.seconds is not None]
        if not whole and not any(asked.completion_tokens for asked in level.asked):
            reason = f"The engine said: {errors.most_common(1)[0][0]}" if errors else f"No token came in {level.seconds:.0f} s."
            raise ModelCoreError(f"At {level.concurrency} at once no request was answered. {reason}")
        tokens = sum(asked.completion_tokens for asked in level.asked)
        row = BenchmarkLevel(
            benchmark=self.benchmark, concurrency=level.concurrency, num_ok=len(whole), num_errors=errors.total(),
            num_cut=len(level.asked) - len(whole) - errors.total(), errors=dict(errors.most_common(20)), seconds=level.seconds,
            prompt_tokens=sum(asked.prompt_tokens for asked in level.asked), completion_tokens=tokens,
            tokens_per_second=tokens / level.seconds, requests_per_second=len(whole) / level.seconds,
            ttft_seconds=spread([asked.ttft_seconds for asked in level.asked if asked.ttft_seconds is not None]),
            itl_seconds=spread([gap for asked in level.asked for gap in asked.gaps]),
            e2e_seconds=spread([asked.seconds for asked in whole if asked.seconds is not None]),
            num_others=self._patiently(lambda: self._others(level.seconds)),
        )  # fmt: skip
        self._patiently(lambda: self._write(row))

    def _others(self, seconds: float) -> int:
        """Requests of people that the deployment got while the level ran."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT now() - make_interval(secs => %s)", [seconds])
            since = cursor.fetchone()[0]
        return UsageRecord.objects.filter(deployment=self.benchmark.deployment_id, created_at__gte=since).count()

    def _write(self, row: BenchmarkLevel) -> None:
        with transaction.atomic():
            mine = self.row.select_for_update(of=("self",)).filter(state=BenchmarkState.RUNNING, pid=self.me.pid)
            if not mine.exists():
                raise _Over
            BenchmarkLevel.objects.bulk_create([row])
            self.row.update(num_done=self.done_before)

    def _note(self, **fields: Any) -> None:
        """Sets columns that are not the state, while the row is ours."""
        self._patiently(lambda: self.row.filter(pid=self.me.pid).update(**fields))

    def _end(self, to: str, reason: str) -> None:
        """The last word, unless it was stopped meanwhile."""
        kept = f" {kept_words(self.benchmark)}" if to != BenchmarkState.SUCCEEDED else ""

        def end() -> None:
            try:
                benchmark_transition(benchmark=self.benchmark, to=to, reason=f"{reason}{kept}")
            except IllegalTransition as error:
                logger.info("%s", error)

        self._patiently(end)

    def _patiently(self, what: Callable[[], T]) -> T:
        """Does it as soon as the database is there."""
        while True:
            try:
                return what()
            except (OperationalError, InterfaceError) as error:
                logger.warning("The database is away: %s.", error)
                connection.close()
                time.sleep(BEAT_SECONDS)
