"""Revisions on the page and in the API: made with a plan, shifted and rolled back by editors, told to everybody."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from r1platform.models import Node, Project
from serving_app import services
from serving_app.models import Deployment, DeploymentRevision, Replica, UsageRecord
from serving_app.shifting import ShiftPlan
from serving_app.takeover import takeover_step
from tests.pages.b_rows import make_checkpoint, make_deployment, make_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment(project: Project, node: Node) -> Deployment:
    return make_deployment(project, make_checkpoint(make_run(project, state="succeeded"), node, 40, is_final=True))


@pytest.fixture
def coming(deployment: Deployment, alice: User) -> DeploymentRevision:
    """Revision 2, ready at its first step, with two healthy answers."""
    made = services.revision_create(deployment=deployment, user=alice, plan={"step_requests": 20})
    Replica.objects.create(revision=made, number=1, state="ready", base_url="http://127.0.0.1:1", ready_at=timezone.now())
    takeover_step(deployment.pk)
    made.refresh_from_db()
    for _ in range(2):
        UsageRecord.objects.create(revision=made, deployment=deployment, model_name=deployment.name, ttft_seconds=0.25)
    return made


def page_of(client: Client, deployment: Deployment) -> str:
    return " ".join(client.get(reverse("deployment-detail", args=[deployment.pk])).content.decode().split())


def test_a_revision_is_made_through_the_form_with_its_plan(deployment: Deployment, client_erin: Client) -> None:
    address = reverse("deployment-revise", args=[deployment.pk])
    shown = client_erin.get(address)
    sent: dict[str, Any] = {}
    for form in (shown.context["form"], shown.context["engine_form"], shown.context["plan_form"]):
        for name, field in form.fields.items():
            value = form[name].value()
            if value not in (None, False):
                sent[form.add_prefix(name)] = field.prepare_value(value) if hasattr(field, "prepare_value") else value
    steps = next(name for name in sent if name.endswith("steps"))
    refused = client_erin.post(address, sent | {steps: "[50, 10]"})
    assert refused.status_code == 422 and "rise and lie between 1 and 99" in refused.content.decode()
    assert deployment.revisions.count() == 1
    answer = client_erin.post(address, sent | {steps: "[25]"})
    assert answer.status_code == 302, answer.content.decode()
    made = deployment.revisions.get(number=2)
    assert made.state == "warming" and made.plan == ShiftPlan(steps=[25]).resolved()
    assert "Revision 2 takes over" in page_of(client_erin, deployment)


def test_the_page_tells_the_evidence_and_offers_what_can_be_done(
    deployment: Deployment, coming: DeploymentRevision, client_erin: Client, client_bob: Client
) -> None:
    page = page_of(client_bob, deployment)
    assert "It gets 10 % of the requests, revision 1 the others." in page and "250 ms" in page.replace("\u202f", " ")
    assert "1 of 1 ready" in page and "answers 10 % of the requests" in page and "answers 90 % of the requests" in page
    assert "of 20</span>" in page and "Give it" not in page and "Roll back" not in page
    for share in (50, 100):
        assert f"Give it {share} %" in page_of(client_erin, deployment)
    act = reverse("deployment-act", args=[deployment.pk, "shift"])
    client_erin.post(act, {"revision": 2, "share": 50, "reason": "It looks good."})
    page = page_of(client_bob, deployment)
    assert "It gets 50 % of the requests" in page and "50 % of the requests. It looks good." in page and "by erin" in page
    for wrong in ({"revision": 1, "share": 100}, {"revision": 2, "share": 0}, {"revision": 2, "share": "x"}, {}):
        client_erin.post(act, wrong)
    coming.refresh_from_db()
    assert coming.share == 50
    client_erin.post(reverse("deployment-act", args=[deployment.pk, "rollback"]), {"reason": "Too slow."})
    page = page_of(client_erin, deployment)
    assert "takes over" not in page and "Rolled back" in page and "Too slow." in page and "Go back to it" in page
    listed = client_bob.get(reverse("deployment-list")).content.decode()
    assert "step 40" in listed


def test_the_api_shifts_rolls_back_and_tells_the_history(
    deployment: Deployment, coming: DeploymentRevision, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient,
    api_anonymous: APIClient,
) -> None:  # fmt: skip
    url = f"/api/v1/deployments/{deployment.pk}/"
    for verb in ("shift", "rollback"):
        for api, status in ((api_bob, 403), (api_charlie, 404), (api_anonymous, 401)):
            assert api.post(f"{url}{verb}/", {"revision": 2, "share": 50}).status_code == status
    found = api_bob.get(url).json()
    assert (found["revision"]["number"], found["coming"]["number"], found["coming"]["share"]) == (1, 2, 10)
    assert found["coming"]["measured"] | {"seconds": 0} == {"num_healthy": 2, "num_errors": 0, "ttft_seconds": 0.25, "seconds": 0}
    refused = api_erin.post(f"{url}shift/", {"revision": 2, "share": 0})
    assert refused.status_code == 400 and "1 to 100 percent" in refused.json()["errors"]["share"][0]
    assert api_erin.post(f"{url}shift/", {"revision": 2, "share": 100}).json()["revision"]["number"] == 2
    assert api_erin.post(f"{url}rollback/", {"revision": 1, "reason": "Wrong sums."}).json()["coming"]["number"] == 1
    told = api_bob.get(f"{url}history/").json()
    assert [(one["revision"], one["after"], one["user"]) for one in told if one["revision"]][:4] == [
        (1, "warming", "erin"), (2, "current", "erin"), (1, "retired", "erin"), (2, "shifting", None),
    ]  # fmt: skip
    assert told[0]["reason"] == "Back to it from revision 2. Wrong sums."
    assert all(one["revision"] for one in told), "the deployment was ready at every moment"
    assert api_erin.patch(url, {"idle_seconds": 900}).json()["idle_seconds"] == 900
    refused = api_erin.patch(url, {"idle_seconds": 5})
    assert refused.status_code == 400 and "60 to 604800 seconds" in refused.json()["errors"]["idle_seconds"][0]
    assert api_charlie.get(f"{url}history/").status_code == 404
    wrong = api_erin.post(f"{url}revisions/", {"plan": {"mode": "fast"}}, format="json")
    assert wrong.status_code == 400, "one is on its way"
    api_erin.post(f"{url}rollback/")
    wrong = api_erin.post(f"{url}revisions/", {"plan": {"mode": "fast"}}, format="json")
    assert wrong.status_code == 400 and "plan.mode" in wrong.json()["errors"]
