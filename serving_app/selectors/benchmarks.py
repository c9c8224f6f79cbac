"""Readings of benchmarks of deployments: what was measured, what can be laid beside it, and all of it as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Max, QuerySet

from r1platform.access import for_user
from serving_app.models import BenchmarkLevel, Deployment, DeploymentBenchmark

MAX_COMPARED = 8
"""As many as there are colours."""
SPREADS = ("ttft", "itl", "e2e")
STATISTICS = ("mean", "p50", "p90", "p99")
COLUMNS = [
    "benchmark", "revision", "engine", "checkpoint", "state", "started_at", "concurrency", "num_ok", "num_errors", "num_cut",
    "num_others", "seconds", "prompt_tokens", "completion_tokens", "tokens_per_second", "requests_per_second",
    *(f"{name}_{statistic}_seconds" for name in SPREADS for statistic in STATISTICS),
]  # fmt: skip
"""Of the export, a row a level."""


def benchmark_list(*, user: User | AnonymousUser, deployment: Deployment | None = None) -> QuerySet[DeploymentBenchmark]:
    """Benchmarks of deployments that the user may see and that are not deleted, newest first, with their best throughput."""
    found = for_user(DeploymentBenchmark.objects.filter(deployment__deleted_at=None), user, path="deployment__project")
    found = found.select_related(
        "deployment__project", "revision__checkpoint", "dataset_version__dataset", "node", "created_by"
    ).annotate(best=Max("levels__tokens_per_second"))  # fmt: skip
    found = found.order_by("-id")
    return found if deployment is None else found.filter(deployment=deployment)


def benchmarks_compared(benchmarks: QuerySet[DeploymentBenchmark], chosen: Sequence[int]) -> list[DeploymentBenchmark]:
    """Those that are chosen; when none is, the newest of each revision that has a level."""
    with_levels = benchmarks.filter(pk__in=BenchmarkLevel.objects.values("benchmark")).prefetch_related("levels")
    if chosen:
        return list(with_levels.filter(pk__in=chosen[:MAX_COMPARED]))
    newest: dict[int, DeploymentBenchmark] = {}
    for one in with_levels[:200]:
        newest.setdefault(one.revision_id, one)
    return list(newest.values())[:MAX_COMPARED]


def level_row(level: BenchmarkLevel) -> dict[str, Any]:
    """One level for a chart or a table of figures."""
    names = (
        "concurrency", "num_ok", "num_errors", "num_cut", "num_others", "seconds", "prompt_tokens", "completion_tokens",
        "tokens_per_second", "requests_per_second", "ttft_seconds", "itl_seconds", "e2e_seconds",
    )  # fmt: skip
    return {name: getattr(level, name) for name in names}


def benchmark_rows(benchmarks: QuerySet[DeploymentBenchmark]) -> Iterator[dict[str, Any]]:
    """A row for each level, by COLUMNS; the newest benchmark first."""
    for one in benchmarks.prefetch_related("levels").iterator(chunk_size=200):
        checkpoint = one.revision.checkpoint
        told = {
            "benchmark": one.pk, "revision": one.revision.number, "engine": one.revision.engine,
            "checkpoint": checkpoint.pk if checkpoint is not None else "", "state": one.state,
            "started_at": one.started_at.isoformat() if one.started_at else "",
        }  # fmt: skip
        for level in one.levels.all():
            yield told | _flat(level)


def _flat(level: BenchmarkLevel) -> dict[str, Any]:
    row = level_row(level)
    for name in SPREADS:
        spread = row.pop(f"{name}_seconds") or {}
        row |= {f"{name}_{statistic}_seconds": spread.get(statistic, "") for statistic in STATISTICS}
    return row
