"""A run whose rollouts lie where its trainer would have stored them."""

from __future__ import annotations

import gzip
import json
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, rundir_of
from training_app.models import PhaseRun, RunAttempt, RunEvent


def group(prompt: str, *texts: tuple[str, bool, float]) -> dict[str, Any]:
    """One prompt with (completion, was it right, reward) of each."""
    made = [
        {"text": text, "correct": correct, "reward": reward, "num_tokens": len(text), "finish_reason": "stop"}
        for text, correct, reward in texts
    ]
    return {"prompt": prompt, "answer": "2", "task": "sums", "completions": made}


def store(attempt: RunAttempt, step: int, groups: list[dict[str, Any]]) -> None:
    """Writes a step's file and the event that tells of it."""
    file = f"samples/step_{step:08d}.jsonl.gz"
    with gzip.open(rundir_of(attempt).path / file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in groups)
    seq = attempt.events.count() + 1
    RunEvent.objects.create(
        run=attempt.run, attempt=attempt, seq=seq, time=timezone.now(), kind="rollouts", payload={"step": step, "file": file}
    )


def run_with_rollouts(project: Project, user: User, node: Node) -> PhaseRun:
    """Two steps: in the first one prompt was solved twice and one never, in the second a third was solved."""
    run = make_run(project, user)
    attempt = make_attempt(run, node, state="succeeded")
    store(attempt, 1, [
        group("1+1?", ("a long way to</think>2", True, 0.8), ("short</think>2", True, 0.6), ("wrong</think>3", False, 0.1)),
        group("9+9?", ("no</think>1", False, 0.0)),
    ])  # fmt: skip
    store(attempt, 2, [group("1+0+1?", ("so</think>2", True, 0.9))])
    return run
