"""Every operation of the schema is called with what the schema allows: nothing breaks, every answer is as it is described.

One call each in the default run, many when the slow ones are asked for; by an owner and by nobody. The rows of the
project are real, so that addresses with their ids lead somewhere; what a call changed is taken back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as given_settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from r1platform.invitations import invitation_create
from r1platform.keys import api_key_create
from r1platform.models import Node, Project, Role
from r1platform.webhooks import webhook_create, webhook_send
from serving_app.models import Message, Replica
from tests.pages.b_rows import (
    make_benchmark,
    make_checkpoint,
    make_conversation,
    make_deployment,
    make_event,
    make_launch,
    make_run,
)
from training_app.models import Alert, AlertRule, Dataset, DatasetVersion, Evaluation, PipelinePhase, Upload

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REFUSED = {401, 403, 404, 405}


@dataclass
class Caller:
    """Who calls, and ids that lead somewhere: by resource, and by the name of a field."""

    headers: dict[str, str]
    rows: dict[str, int]
    values: dict[str, Any]


@pytest.fixture
def owner(alice: User, project: Project, node: Node) -> Caller:
    """With one row of everything."""
    launch = make_launch(project)
    run = make_run(project, launch=launch)
    checkpoint = make_checkpoint(run, node)
    make_event(run, node, 1, "progress", step=1, total=2, stage="train", fraction=0.5)
    deployment = make_deployment(project, checkpoint)
    conversation = make_conversation(project, alice, deployment)
    dataset = Dataset.objects.create(project=project, name="Sums", kind="self")
    version = DatasetVersion.objects.create(dataset=dataset, number=1, config={})
    upload = Upload.objects.create(project=project, file_name="rows.jsonl", format="jsonl", size_bytes=1, sha256="ab" * 32)
    phase = PipelinePhase.objects.create(pipeline=launch.pipeline, position=0, name="cold-start", phase="cold_start", config={}, gate_metric="")
    rule = AlertRule.objects.create(project=project, name="Ends", kind="ended")
    alert = Alert.objects.create(project=run.project, run=run, rule=rule, name="Ends", message="It has ended.")
    asked = Evaluation.objects.create(project=project, benchmark="gsm8k", data_name="gsm8k", endpoint="https://x.example.org", config={})
    webhook = webhook_create(project=project, user=alice, name="Chat", url="https://hooks.example.org/")[0]
    webhook_send(webhook=webhook, event="ping", data={})
    key, secret = api_key_create(user=alice, name="k", scopes=["read", "write", "inference"])
    rows = {
        "projects": project.pk, "nodes": node.pk, "devices": node.devices.all()[0].pk, "api-keys": key.pk, "datasets": dataset.pk,
        "dataset-versions": version.pk, "uploads": upload.pk, "pipelines": launch.pipeline_id, "launches": launch.pk, "runs": run.pk,
        "checkpoints": checkpoint.pk, "deployments": deployment.pk, "conversations": conversation.pk,
        "deployment-benchmarks": make_benchmark(deployment).pk, "alert-rules": rule.pk, "alerts": alert.pk, "evaluations": asked.pk, "webhooks": webhook.pk,
    }  # fmt: skip
    values = {
        "project": project.pk, "checkpoint": checkpoint.pk, "dataset_version": version.pk, "starts_from": checkpoint.pk,
        "rollouts_from": checkpoint.pk, "run": run.pk, "upload": upload.pk, "deployment": deployment.pk,
        "revision": deployment.revisions.get().pk,
        "message_id": Message.objects.all()[0].pk, "replica_id": Replica.objects.get().pk, "phase_id": phase.pk,
        "invitation_id": invitation_create(project=project, by=alice, role=Role.VIEWER)[0].pk, "username": "alice",
        "template": "article", "phase": "cold_start", "engine": "builtin",
    }  # fmt: skip
    return Caller({"Authorization": f"Bearer {secret}"}, rows, values)


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """A request ends with the test's connection still open, as Django's own test client has it."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def operations() -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(public=True))
    schema.app = get_wsgi_application()
    for found in schema.get_all_operations():
        yield found.ok()


def leads_somewhere(case: Any, caller: Caller) -> None:
    """Puts ids of real rows where the operation asks for some."""
    parts = case.operation.path.split("/")
    for name in case.path_parameters or {}:
        known = caller.values.get(name, caller.rows.get(parts[3]) if name == "id" else None)
        if known is not None:
            case.path_parameters[name] = known
    for given_values in (case.query, case.body):
        if isinstance(given_values, dict):
            given_values |= {name: caller.values[name] for name in given_values if name in caller.values}


def call(operation: Any, caller: Caller, *, num: int, only: set[int] | None) -> None:
    """Calls the operation up to `num` times, every other time at real rows."""
    turns = iter(range(num))

    @seed(1)
    @given_settings(max_examples=num, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def calls(case: Any) -> None:
        if next(turns, 0) % 2 == 0:
            leads_somewhere(case, caller)
        with transaction.atomic():
            answer = case.call(headers=caller.headers)
            transaction.set_rollback(True)
        case.validate_response(answer, checks=CHECKS)
        assert only is None or answer.status_code in only, (case.method, case.path, answer.status_code)

    calls()


def call_all(caller: Caller, *, num: int, only: set[int] | None = None) -> int:
    """Calls each operation up to `num` times; returns how many operations there are. Every failure is told, not the first only."""
    failures, known = [], list(operations())
    for operation in known:
        try:
            call(operation, caller, num=num, only=only)
        except (AssertionError, FailureGroup) as error:
            failures.append(f"{operation.label}: {error}")
    assert not failures, f"{len(failures)} operations\n" + "\n\n".join(failures)
    return len(known)


def test_every_operation_answers_as_the_schema_says(owner: Caller) -> None:
    """Once each, at real rows; that nobody is let in is `tests/contracts/test_every_door` in the default run."""
    assert call_all(owner, num=1) > 80


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_operation_answers_as_the_schema_says_whatever_is_sent(owner: Caller) -> None:
    call_all(owner, num=60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nobody_is_let_in_whatever_is_sent(owner: Caller) -> None:
    """An address with a zero byte is a 400 before anybody is asked who they are."""
    owner.headers = {}
    call_all(owner, num=15, only=REFUSED | {400})
