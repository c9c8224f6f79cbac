"""Rows that the tests of training start from, as the services leave them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.db import transaction

from model_core.config import RunConfig
from model_core.rundir import COMPLETE, RunDir, write_json
from r1platform.lib.storage import run_dir
from r1platform.models import Node, Project
from training_app import buckets, pyramid
from training_app.models import Dataset, DatasetVersion, MetricSeries, PhaseRun, RunAttempt


def make_version(project: Project, **values: Any) -> DatasetVersion:
    """A ready version without files."""
    dataset, _ = Dataset.objects.get_or_create(project=project, name="Sums")
    number = dataset.versions.count() + 1
    ready = {"state": "ready", "manifest": {}, "sha256": "ab" * 32, "num_rows": 10, "num_held_out": 5, "config": {}}
    return DatasetVersion.objects.create(dataset=dataset, number=number, **{**ready, **values})


def make_run(project: Project, user: User, **values: Any) -> PhaseRun:
    """A queued cold start."""
    config = RunConfig.parse({"phase": "cold_start", **values.pop("config", {})}).resolved()
    version = values.pop("dataset_version", None) or make_version(project)
    made = PhaseRun.objects.create(
        project=project, name="cold-start", phase="cold_start", config=config, dataset_version=version, created_by=user, **values
    )
    made.refresh_from_db()
    return made


def make_attempt(run: PhaseRun, node: Node, number: int = 1, state: str = "running", **values: Any) -> RunAttempt:
    made = RunAttempt.objects.create(run=run, number=number, node=node, state=state, **values)
    made.refresh_from_db()
    return made


def rundir_of(attempt: RunAttempt) -> RunDir:
    """The attempt's directory, made as the supervisor would."""
    rundir = RunDir(run_dir(attempt.run_id, attempt.number))
    rundir.checkpoints.mkdir(parents=True, exist_ok=True)
    rundir.samples.mkdir(exist_ok=True)
    return rundir


def put_checkpoint(rundir: RunDir, step: int) -> Path:
    """A complete checkpoint that holds nothing."""
    directory = rundir.checkpoint(step)
    (directory / "model").mkdir(parents=True)
    write_json(directory / "metadata.json", {"step": step})
    (directory / COMPLETE).touch()
    return directory


def tell(rundir: RunDir, seq: int, kind: str, **payload: Any) -> None:
    """Appends one event as the trainer does."""
    line = {"seq": seq, "time": time.time(), "kind": kind, "payload": payload}
    with rundir.events.open("a") as file:
        file.write(json.dumps(line) + "\n")


def scalars(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "tokens": step * 100, "process_seconds": step / 2, "values": values}


def put_series(run: PhaseRun, name: str, values: dict[int, float | None]) -> MetricSeries:
    """A series with these values by step, None for what is no number, as ingestion leaves it."""
    MetricSeries.objects.filter(run=run, name=name).delete()
    series = MetricSeries.objects.create(run=run, name=name, first_step=min(values))
    stamps = [(step, 1.8e9 + step, step * 100, step / 2) for step in values]
    numbers = [float("nan") if value is None else value for value in values.values()]
    with transaction.atomic():
        pyramid.write([(series, buckets.points(np.array(stamps, buckets.STAMP), numbers))])
    return series
