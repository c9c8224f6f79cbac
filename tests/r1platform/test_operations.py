"""What operators see: the queue and what is stuck, by whom it may be seen; metrics, the dashboard and the rules made of them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from r1platform.keys import api_key_create
from r1platform.lib.leases import leases_claim
from r1platform.models import Node, Project
from r1platform.operations import HIDDEN, STUCK_KINDS, stuck_things
from serving_app.models import Replica
from tests.pages.b_rows import make_checkpoint, make_deployment, make_run
from training_app.models import Dataset, DatasetVersion, PhaseRun, RunAttempt

ROOT = Path(settings.BASE_DIR)
LONG_AGO = Now() - timedelta(hours=1)


def attempt_of(run: PhaseRun, node: Node, **values: Any) -> RunAttempt:
    made = RunAttempt.objects.create(run=run, number=1, node=node, state=values.pop("state", "running"))
    RunAttempt.objects.filter(pk=made.pk).update(**{"heartbeat_at": Now(), **values})
    return made


def all_that_sticks(project: Project, node: Node) -> None:
    """One thing of each kind."""
    attempt_of(make_run(project), node, heartbeat_at=LONG_AGO)
    attempt_of(make_run(project, state="stopping"), node, state="stopping", stop_asked_at=LONG_AGO)
    ended = attempt_of(make_run(project, state="failed"), node, state="failed", finished_at=LONG_AGO)
    leases_claim(holder=f"attempt:{ended.pk}", num=1)
    dataset = Dataset.objects.create(project=project, name="Sums", kind="self")
    DatasetVersion.objects.create(dataset=dataset, number=1, config={}, state="preparing", heartbeat_at=LONG_AGO)
    make_deployment(project, make_checkpoint(make_run(project, state="succeeded"), node))
    Replica.objects.update(state="unreachable", state_reason="It does not answer.")
    Node.objects.update(heartbeat_at=LONG_AGO)


def test_nothing_is_stuck_because_it_takes_long(project: Project, node: Node) -> None:
    run = make_run(project)
    attempt_of(run, node, created_at=LONG_AGO, started_at=LONG_AGO)
    leases_claim(holder=f"attempt:{run.attempts.get().pk}", num=1)
    make_deployment(project, make_checkpoint(run, node))
    assert list(stuck_things()) == []


def test_replica_that_lets_answers_end_is_not_stuck_before_its_time(project: Project, node: Node) -> None:
    make_deployment(project, make_checkpoint(make_run(project), node))
    Replica.objects.update(state="stopping", created_at=Now() - timedelta(minutes=10), drain_seconds=900)
    assert list(stuck_things()) == []
    Replica.objects.update(drain_seconds=30)
    assert [item["kind"] for item in stuck_things()] == ["replica"]


def test_each_kind_is_found_with_why_and_since(project: Project, node: Node, api_alice: APIClient, api_charlie: APIClient) -> None:
    all_that_sticks(project, node)
    told = api_alice.get("/api/v1/operations/").json()["stuck"]
    assert {item["kind"] for item in told} == set(STUCK_KINDS)
    assert all(item["why"] and item["what"] and item["since"] for item in told)
    strangers = api_charlie.get("/api/v1/operations/").json()["stuck"]
    assert len(strangers) == len(told)
    for item in strangers:
        assert item["kind"] == "node" or (item["run"], item["deployment"], item["why"]) == (None, None, HIDDEN)
    assert "better sums" not in json.dumps(strangers)


def test_the_queue_is_told_whole_and_names_only_ones_own(project: Project, node: Node, charlie: User, api_alice: APIClient) -> None:
    theirs = make_run(Project.objects.get(slug="elsewhere"), name="secret plan", state="queued", waiting_reason="Waits for secret data.")
    mine = make_run(project, state="queued", waiting_reason="2 devices are wanted and 1 of 2 are free.")
    queue = api_alice.get("/api/v1/operations/").json()["queue"]
    assert [item["place"] for item in queue] == [1, 2]
    assert (queue[0]["run"], queue[0]["reason"]) == (None, HIDDEN) and "secret" not in json.dumps(queue)
    assert queue[1]["run"] == mine.pk != theirs.pk and "2 devices are wanted" in queue[1]["reason"]


def test_the_page_shows_both(client_alice: Client, client_charlie: Client, project: Project, node: Node) -> None:
    all_that_sticks(project, node)
    make_run(project, state="queued")
    page = client_alice.get(reverse("node-list")).content.decode()
    assert "Stuck" in page and "still holds" in page and "The scheduler has not looked" in page
    other = client_charlie.get(reverse("node-list")).content.decode()
    assert "A run of another project" in other and "better sums" not in other


def test_operations_cost_a_fixed_number_of_queries(
    api_alice: APIClient, client_alice: Client, project: Project, node: Node, django_assert_max_num_queries: Any
) -> None:
    for _ in range(8):
        attempt_of(make_run(project), node, heartbeat_at=LONG_AGO)
        make_run(project, state="queued")
    with django_assert_max_num_queries(20):
        assert len(api_alice.get("/api/v1/operations/").json()["stuck"]) == 8
    with django_assert_max_num_queries(30):
        client_alice.get(reverse("node-list"))


def test_readings_of_a_gpu_are_shown(client_alice: Client, node: Node) -> None:
    gpu = {"index": 0, "memory_used_bytes": 12 << 30, "temperature_celsius": 54}
    Node.objects.update(hardware={"gpus": [gpu], "disk_free_bytes": 5 << 30})
    node.devices.create(kind="cuda", index=0, name="H200", memory_bytes=80 << 30)
    assert "12.0\u202fGiB in use, 54 °C" in client_alice.get(reverse("node-list")).content.decode()
    text = client_alice.get("/metrics").content.decode()
    assert 'r1_device_temperature_celsius{device="cuda:0",node="node-1"} 54.0' in text


def scraped(client: Client) -> str:
    return client.get("/metrics").content.decode()


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\br1_[a-z0-9_]+", text))


def families(text: str) -> set[str]:
    """What can be asked for: every family, a histogram's parts with it."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    parts = {f"{name}{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("_bucket", "_sum", "_count")}
    return set(kinds) | parts


def test_metrics_tell_the_platform_as_it_is(client_alice: Client, project: Project, node: Node) -> None:
    all_that_sticks(project, node)
    PhaseRun.objects.filter(state="running").update(device_seconds=12.5, num_tokens=7)
    text = scraped(client_alice)
    for line in ('r1_runs{state="running"} 1.0', 'r1_runs{state="lost"} 0.0', 'r1_node_state{node="node-1",state="silent"} 1.0',
                 'r1_stuck{kind="lease"} 1.0', "r1_run_device_seconds_total 12.5", "r1_run_tokens_total 7.0",
                 'r1_replicas{state="unreachable"} 1.0'):  # fmt: skip
        assert line in text, line
    oldest = float(re.findall(r'^r1_stuck_oldest_seconds{kind="supervisor"} (\S+)$', text, re.MULTILINE)[0])
    assert 3600 <= oldest < 3700


def test_engines_are_told_by_deployment(client_alice: Client, project: Project, node: Node) -> None:
    make_deployment(project, make_checkpoint(make_run(project), node))
    text = scraped(client_alice)
    assert 'r1_engine_requests_running{deployment="sums-r1",replica="1"} 2.0' in text
    assert 'r1_engine_ttft_seconds{deployment="sums-r1",replica="1"} 0.03' in text


def test_requests_are_counted_by_view(client_alice: Client) -> None:
    client_alice.get("/livez")
    assert re.search(r'^r1_http_requests_total{method="GET",status="2xx",view="livez"} [1-9]', scraped(client_alice), re.MULTILINE)


@pytest.mark.django_db
@pytest.mark.parametrize("file", ["ops/alerts.yml", "ops/grafana-dashboard.json", "docs/operations.md"])
def test_every_metric_that_is_named_exists(file: str) -> None:
    named = names_in((ROOT / file).read_text())
    assert len(named) > 10
    assert not named - families(scraped(Client()))


@pytest.mark.django_db
def test_every_metric_of_ours_is_documented() -> None:
    ours = {name for name in re.findall(r"^# TYPE (r1_\S+) ", scraped(Client()), re.MULTILINE) if not name.endswith("_created")}
    assert ours - names_in((ROOT / "docs/operations.md").read_text()) == set()


def test_rules_and_panels_are_whole() -> None:
    rules = [rule for group in yaml.safe_load((ROOT / "ops/alerts.yml").read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in rules)
    panels = json.loads((ROOT / "ops/grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_who_may_scrape(client_charlie: Client, alice: User) -> None:
    away = {"REMOTE_ADDR": "10.0.0.9"}
    assert client_charlie.get("/metrics", **away).status_code == 401
    reader, writer = (api_key_create(user=alice, name=scope, scopes=[scope])[1] for scope in ("read", "write"))
    assert Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {reader}", **away).status_code == 200
    assert Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {writer}", **away).status_code == 401
    assert Client().get("/metrics", HTTP_X_FORWARDED_FOR="127.0.0.1").status_code == 401
