"""Routing of a text by a checkpoint: asked here, computed by `python -m model_core route` in a process of its own on the node
that has the files, answered by the file that it writes.

The same process counts the load by domain: beside the text it is given answers that the run has sampled, by their task.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from model_core.errors import CheckpointError, ConfigError, DataError
from r1platform.lib.processes import child_environment, spawn
from r1platform.lib.sending import send_on_commit
from r1platform.lib.storage import home
from training_app import selectors
from training_app.models import Checkpoint, PhaseRun, RoutedText
from training_app.services import checkpoint_model_dir
from training_app.services.runs import run_audit

MAX_CHARS = 20_000
MAX_TEXTS = 200
"""Sampled answers that are counted by domain."""
PATIENCE = timedelta(minutes=5)
"""After which a question without an answer has failed."""


@transaction.atomic
def route_ask(*, run: PhaseRun, user: User, checkpoint: Checkpoint, prompt: str, completion: str = "") -> RoutedText:
    """Asks where the tokens of a text go. Raises ConfigError, CheckpointError or DataError at its field."""
    if not prompt.strip():
        raise ConfigError("Write the prompt whose tokens are to be followed.", field="prompt")
    for name, text in (("prompt", prompt), ("completion", completion)):
        if len(text) > MAX_CHARS:
            raise ConfigError(f"At most {MAX_CHARS} characters; these are {len(text)}.", field=name)
    if checkpoint.run_id != run.pk:
        raise CheckpointError(f"Run {run.pk} has no such checkpoint.", field="checkpoint")
    if checkpoint.removed_at is not None:
        raise CheckpointError(f"{checkpoint} was removed from disk to make room. Choose another.", field="checkpoint")
    open_ = RoutedText.objects.filter(run=run, created_at__gt=timezone.now() - PATIENCE)
    if any(route_answer(one)["state"] == "working" for one in open_):
        raise DataError("Another text of this run is being routed; wait for it.", field="prompt")
    made = RoutedText.objects.create(run=run, checkpoint=checkpoint, prompt=prompt, completion=completion, created_by=user)
    run_audit(run, user, "run.route", checkpoint=checkpoint.pk)
    send_on_commit("training_app.tasks.route", made.pk, queue=checkpoint.attempt.node.name)
    made.refresh_from_db()
    return made


def route_start(routed: RoutedText) -> None:
    """Starts the process on this node; asking twice starts one."""
    directory = route_dir(routed)
    directory.mkdir(parents=True, exist_ok=True)
    texts = directory / "texts.jsonl"
    try:
        with texts.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in _texts(routed))
    except FileExistsError:
        return
    model = checkpoint_model_dir(routed.checkpoint)
    argv = [sys.executable, "-m", "model_core", "route", str(model), "--texts", str(texts), "--json", str(directory / "out.json")]
    environment = child_environment(os.environ, mark=directory) | {"OMP_NUM_THREADS": "1"}
    spawn(argv, cwd=settings.BASE_DIR, env=environment, log=directory / "log")


def route_answer(routed: RoutedText) -> dict[str, Any]:
    """`state` working, done or failed; `error` says why; done has what `route` told."""
    try:
        told: dict[str, Any] = json.loads((route_dir(routed) / "out.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if timezone.now() - routed.created_at < PATIENCE:
            return {"state": "working", "error": ""}
        return {"state": "failed", "error": "No answer came. The node may be down, or the model too large for its memory."}
    if "error" in told:
        return {"state": "failed", "error": told["error"]["message"]}
    return {"state": "done", "error": "", **told}


def route_dir(routed: RoutedText) -> Path:
    """Where the question and its answer lie; it follows from the id."""
    return home() / "routes" / str(int(routed.pk))


def _texts(routed: RoutedText) -> list[dict[str, str]]:
    """The text that is asked for, then answers that the run has sampled, the tasks in turn."""
    by_task: dict[str, list[dict[str, str]]] = {}
    try:
        groups = selectors.run_rollouts(routed.run)["groups"]
    except DataError:
        groups = []
    for group in groups:
        for one in group["completions"][:2]:
            task = str(group.get("task") or "")
            by_task.setdefault(task, []).append({"prompt": group["prompt"], "completion": one["text"], "domain": task})
    share = MAX_TEXTS // max(1, len(by_task))
    asked = {"prompt": routed.prompt, "completion": routed.completion, "domain": "this text"}
    return [asked, *(text for texts in by_task.values() for text in texts[:share])]
