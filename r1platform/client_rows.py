"""Rows of the REST API as `r1platform.client` hands them out: the parts that programs read most.

A row holds everything that the schema says (`/api/v1/docs/`); what is not named here is there too. Times are ISO 8601
texts, durations seconds, sizes bytes, shares between 0 and 1.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Project(TypedDict):
    """What everything belongs to."""

    id: int
    name: str
    slug: str
    description: str
    role: str
    created_at: str
    archived_at: str | None


class Dataset(TypedDict):
    """A named source; what it holds is in its versions."""

    id: int
    project: int
    name: str
    kind: str
    description: str
    created_at: str


class DatasetVersion(TypedDict):
    """One preparation; `state` ends as ready, failed or stopped."""

    id: int
    dataset: int
    number: int
    state: str
    state_reason: str
    config: Any
    sha256: str
    num_rows: int
    num_held_out: int
    progress: float
    created_at: str
    finished_at: str | None


class Pipeline(TypedDict):
    """A chain of phases with budgets and gates."""

    id: int
    project: int
    name: str
    template: str
    seed: int
    phases: list[dict[str, Any]]
    created_at: str


class Run(TypedDict):
    """One phase executed with one configuration; `summary` has the last value of each scalar."""

    id: int
    project: int
    name: str
    phase: str
    launch: int | None
    state: str
    state_reason: str
    waiting_reason: str
    config: Any
    dataset_version: int | None
    starts_from: int | None
    gate_verdict: str
    result: Any
    progress: Any
    summary: Any
    device_seconds: float
    num_tokens: int
    tags: Any
    notes: str
    created_at: str
    started_at: str | None
    finished_at: str | None


class Launch(TypedDict):
    """One launch of a pipeline with its runs in order."""

    id: int
    project: int
    pipeline: int
    number: int
    state: str
    state_reason: str
    runs: list[Run]
    created_at: str
    finished_at: str | None


class Checkpoint(TypedDict):
    """A complete checkpoint; `removed_at` says since when it is gone from disk."""

    id: int
    run: int
    attempt: int
    step: int
    metrics: Any
    sha256: str
    size_bytes: int
    is_final: bool
    created_at: str
    removed_at: str | None


class Revision(TypedDict):
    """What a deployment serves, a checkpoint or an imported model; `share` is the percent of the requests meant for it."""

    id: int
    number: int
    checkpoint: int | None
    run: int | None
    step: int | None
    imported_model: int | None
    engine: str
    engine_config: Any
    state: str
    state_reason: str
    share: int
    plan: Any
    created_at: str


class Deployment(TypedDict):
    """A model that the gateway answers to under `name`; `revision` is the current one, `coming` one that is to take over."""

    id: int
    project: int
    name: str
    description: str
    state: str
    state_reason: str
    desired_replicas: int
    idle_seconds: int
    revision: Revision | None
    coming: Revision | None
    created_at: str


class Metrics(TypedDict):
    """Columns of each series; a bucket holds `width` steps."""

    series: list[dict[str, Any]]
    last_event_id: int
    width: int
