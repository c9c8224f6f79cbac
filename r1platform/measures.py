"""What `/metrics` tells: names, meanings, and how each is counted. Read anew from the database at every scrape;
requests are counted in `r1platform.counting`.

`docs/operations.md` documents each name, `ops/` has a dashboard and alert rules made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Count, QuerySet, Sum
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r1platform.operations import STUCK_KINDS, queue_list, stuck_things
from r1platform.page_data import node_card
from r1platform.selectors import device_counts, node_list
from serving_app.models import Deployment, Replica
from serving_app.states import DeploymentState, ReplicaState
from training_app.models import DatasetVersion, PhaseRun, RunTransition
from training_app.states import RunState, VersionState

ENGINE = {
    "running": ("r1_engine_requests_running", "Requests that an engine works on."),
    "queued": ("r1_engine_requests_queued", "Requests that wait inside an engine."),
    "tokens_per_second": ("r1_engine_tokens_per_second", "Tokens that an engine generates a second."),
    "ttft_seconds": ("r1_engine_ttft_seconds", "Mean time to the first token, lately."),
    "inter_token_seconds": ("r1_engine_inter_token_seconds", "Time between two tokens, lately."),
    "kv_use": ("r1_engine_kv_used_fraction", "Share of an engine's cache that is in use."),
    "cache_hit_rate": ("r1_engine_cache_hit_fraction", "Share of prompt tokens found in the prefix cache."),
}
"""Of the common names of `model_core.serving.protocol`: the metric and its meaning."""


class PlatformCollector(Collector):
    """Everything that is read from the database, with one query or two a family."""

    def collect(self) -> Iterator[Metric]:
        yield from _nodes()
        yield _by_state("r1_runs", "Runs by state.", PhaseRun.objects.all(), RunState.values)
        yield _by_state("r1_dataset_versions", "Dataset versions by state.", DatasetVersion.objects.all(), VersionState.values)
        deployments = Deployment.objects.filter(deleted_at=None)
        yield _by_state("r1_deployments", "Deployments by state.", deployments, DeploymentState.values)
        yield _by_state("r1_replicas", "Replicas by state.", Replica.objects.filter(finished_at=None), ReplicaState.values)
        yield _moves()
        yield from _work()
        yield from _stuck()
        yield from _engines()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            size = cursor.fetchone()[0]
        yield GaugeMetricFamily("r1_database_size_bytes", "Size of the platform's database.", value=size)


def _nodes() -> Iterator[Metric]:
    counts = device_counts()
    devices = GaugeMetricFamily("r1_devices", "Devices of nodes that are up.", labels=["state"])
    devices.add_metric(["held"], counts["held"])
    devices.add_metric(["free"], counts["total"] - counts["held"])
    yield devices
    nodes = GaugeMetricFamily("r1_node_state", "1 for the state that a node is in.", labels=["node", "state"])
    age = GaugeMetricFamily("r1_node_heartbeat_age_seconds", "Since a node was heard of.", labels=["node"])
    disk = GaugeMetricFamily("r1_node_disk_free_bytes", "Free on the disk of a node's R1_HOME.", labels=["node"])
    heat = GaugeMetricFamily("r1_device_temperature_celsius", "Of a GPU.", labels=["node", "device"])
    used = GaugeMetricFamily("r1_device_memory_used_bytes", "Of a GPU.", labels=["node", "device"])
    for card in map(node_card, node_list()):
        node = card["node"]
        for state in ("online", "draining", "silent"):
            nodes.add_metric([node.name, state], float(card["state"] == state))
        if node.heartbeat_at is not None:
            age.add_metric([node.name], max((timezone.now() - node.heartbeat_at).total_seconds(), 0.0))
        if (free := node.hardware.get("disk_free_bytes")) is not None:
            disk.add_metric([node.name], free)
        for gpu in node.hardware.get("gpus", []):
            for family, key in ((heat, "temperature_celsius"), (used, "memory_used_bytes")):
                if gpu.get(key) is not None:
                    family.add_metric([node.name, f"cuda:{gpu['index']}"], gpu[key])
    yield from (nodes, age, disk, heat, used)


def _by_state(name: str, meaning: str, rows: QuerySet[Any], states: list[str]) -> Metric:
    """A gauge with every state, those of which there is none as well: a rule must see the 0."""
    family = GaugeMetricFamily(name, meaning, labels=["state"])
    counts = dict(rows.order_by().values_list("state").annotate(num=Count("pk")))
    for state in states:
        family.add_metric([state], counts.get(state, 0))
    return family


def _work() -> Iterator[Metric]:
    sums = PhaseRun.objects.aggregate(seconds=Sum("device_seconds"), tokens=Sum("num_tokens"))
    yield CounterMetricFamily("r1_run_device_seconds", "Device time of all runs.", value=sums["seconds"] or 0)
    yield CounterMetricFamily("r1_run_tokens", "Tokens that all runs have processed.", value=sums["tokens"] or 0)


def _moves() -> Metric:
    family = CounterMetricFamily("r1_run_moves", "Times that a run came into a state.", labels=["to"])
    counts = dict(RunTransition.objects.order_by().values_list("after").annotate(num=Count("pk")))
    for state in RunState.values:
        family.add_metric([state], counts.get(state, 0))
    return family


def _stuck() -> Iterator[Metric]:
    waits = [(timezone.now() - item["since"]).total_seconds() for item in queue_list(user=AnonymousUser())]
    yield GaugeMetricFamily("r1_queue_oldest_seconds", "How long the longest has waited for a device.", value=max(waits, default=0))
    stuck = GaugeMetricFamily("r1_stuck", "Things whose keeper is silent or whose end does not come.", labels=["kind"])
    oldest = GaugeMetricFamily("r1_stuck_oldest_seconds", "Since when the longest of them is stuck.", labels=["kind"])
    since: dict[str, list[float]] = {kind: [] for kind in STUCK_KINDS}
    for item in stuck_things():
        since[item["kind"]].append((timezone.now() - item["since"]).total_seconds())
    for kind, ages in since.items():
        stuck.add_metric([kind], len(ages))
        oldest.add_metric([kind], max(ages, default=0))
    yield from (stuck, oldest)


def _engines() -> Iterator[Metric]:
    families = {key: GaugeMetricFamily(name, meaning, labels=["deployment", "replica"]) for key, (name, meaning) in ENGINE.items()}
    for replica in Replica.objects.filter(state=ReplicaState.READY).select_related("revision__deployment"):
        labels = [replica.revision.deployment.name, str(replica.number)]
        for key, family in families.items():
            if isinstance(value := replica.metrics.get(key), int | float):
                family.add_metric(labels, value)
    yield from families.values()
