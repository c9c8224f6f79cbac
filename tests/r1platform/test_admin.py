"""The admin: every model's pages open for staff, show no secret, and their actions leave audit entries."""

from __future__ import annotations

import re
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.staticfiles import finders
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from r1platform.invitations import invitation_create
from r1platform.keys import api_key_create, api_key_find
from r1platform.lib.leases import leases_claim
from r1platform.models import ApiKey, AuditEntry, Node, Project, Role, Webhook
from r1platform.webhooks import webhook_create, webhook_send
from serving_app.models import (
    ConversationShare,
    DeploymentTransition,
    Judgement,
    Price,
    Replica,
    ReplicaTransition,
    RevisionTransition,
    UsageRecord,
)
from serving_app.services import conversation_share, message_rate, preset_create
from tests.pages.b_rows import (
    make_benchmark,
    make_checkpoint,
    make_conversation,
    make_deployment,
    make_event,
    make_import,
    make_launch,
    make_run,
)
from training_app.models import Alert, AlertRule, Dataset, DatasetVersion, Evaluation, Upload

ENGINE_KEY = "the-key-of-the-engine"
MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="correct horse battery")


@pytest.fixture
def browser(root: User) -> Client:
    client = Client()
    client.force_login(root)
    return client


@pytest.fixture
def secret(project: Project, alice: User, node: Node) -> str:
    """At least one row of every model; returns the text of the API key among them."""
    key, text = api_key_create(user=alice, name="laptop", scopes=["read"], project=project)
    Group.objects.create(name="operators")
    SocialAccount.objects.create(provider="https://sso.example.org", uid="1", user=alice)
    invitation_create(project=project, by=alice, role=Role.VIEWER)
    leases_claim(holder="attempt:1", num=1)
    dataset = Dataset.objects.create(project=project, name="Sums", kind="self")
    DatasetVersion.objects.create(dataset=dataset, number=1, config={})
    Upload.objects.create(project=project, file_name="a.jsonl", format="jsonl", size_bytes=1, sha256="ab" * 32, created_by=alice)
    run = make_run(project, launch=make_launch(project))
    make_event(run, node, 1, "log", line="x")
    deployment = make_deployment(project, make_checkpoint(run, node))
    make_import(project, alice)
    replica = Replica.objects.get()
    Replica.objects.update(engine_key=ENGINE_KEY)
    DeploymentTransition.objects.create(deployment=deployment, before="queued", after="ready")
    RevisionTransition.objects.create(revision=replica.revision, before="warming", after="current")
    ReplicaTransition.objects.create(replica=replica, before="queued", after="ready")
    chat = make_conversation(project, alice, deployment)
    message_rate(message=chat.messages.get(role="assistant"), user=alice, value=1)
    conversation_share(conversation=chat, user=alice)
    preset_create(project=project, user=alice, name="Brief")
    Price.objects.create(deployment=deployment)
    make_benchmark(deployment)
    UsageRecord.objects.create(project=project, user=alice, api_key=key, model_name="sums", status=200)
    webhook, _secret = webhook_create(project=project, user=alice, name="x", url="https://hooks.example.org/")
    webhook_send(webhook=webhook, event="ping", data={})
    rule = AlertRule.objects.create(project=project, name="x", kind="ended")
    Alert.objects.create(project=run.project, run=run, rule=rule, name="x", message="x")
    Evaluation.objects.create(project=project, benchmark="gsm8k", data_name="gsm8k", endpoint="https://x.example.org", config={})
    return text


def pages_of(model: type[Model]) -> list[str]:
    names = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    row = model._default_manager.order_by("-pk").first()
    assert row is not None, f"the test has no row of {model._meta.label}"
    return [reverse(f"{names}_changelist"), f"{reverse(f'{names}_changelist')}?q=a", reverse(f"{names}_change", args=[row.pk])]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_staff_sees_every_model_and_no_secret(browser: Client, secret: str, alice: User, model: type[Model]) -> None:
    hidden = [secret, secret.split("_", 2)[2], ApiKey.objects.get().secret_sha256, ENGINE_KEY]
    hidden += [Webhook.objects.get().salt, ConversationShare.objects.get().token, Judgement.objects.get().chosen]
    hidden += User.objects.values_list("password", flat=True)
    for path in pages_of(model):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        shown = answer.content.decode()
        assert not [text for text in hidden if text in shown], path


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/?next=/admin/", "/admin/nothing/"])
def test_whoever_is_no_staff_is_told_so(client_alice: Client, path: str) -> None:
    answer = client_alice.get(path)
    assert answer.status_code == 403 and "Only staff may enter the admin, and alice is not." in answer.content.decode()
    assert "password" not in answer.content.decode()


def test_the_admin_writes_its_kinds_as_people_do(browser: Client) -> None:
    assert "API keys" in browser.get(reverse("admin:r1platform_apikey_changelist")).content.decode()
    assert "Api keys" not in browser.get("/admin/").content.decode()


def test_staff_without_permissions_sees_no_model(secret: str, client_alice: Client) -> None:
    User.objects.filter(username="alice").update(is_staff=True)
    for model in MODELS:
        for path in pages_of(model):
            assert client_alice.get(path).status_code == 403, path


def act(browser: Client, model: str, action: str, *rows: Model) -> Any:
    form = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    return browser.post(reverse(f"admin:r1platform_{model}_changelist"), form, follow=True)


def test_revoking_keys_ends_them_and_is_in_the_audit(browser: Client, root: User, alice: User, project: Project) -> None:
    (first, text), (second, _) = (api_key_create(user=alice, name=name, scopes=["read"], project=project) for name in "ab")
    assert "1 of 1 keys" in act(browser, "apikey", "revoke", first).content.decode()
    assert api_key_find(text) is None
    assert "1 of 2 keys" in act(browser, "apikey", "revoke", first, second).content.decode()
    left = AuditEntry.objects.filter(action="key.revoke").order_by("id").values_list("user", "target", "project")
    assert list(left) == [(root.pk, f"key:{key.pk}", project.pk) for key in (first, second)]


def test_draining_nodes_is_in_the_audit_once(browser: Client, root: User, node: Node) -> None:
    for action, draining in (("drain", True), ("drain", True), ("take_work_again", False)):
        assert act(browser, "node", action, node).status_code == 200
        node.refresh_from_db()
        assert node.draining is draining
    left = AuditEntry.objects.filter(target=f"node:{node.pk}").order_by("id").values_list("user", "action")
    assert list(left) == [(root.pk, "node.drain"), (root.pk, "node.undrain")]


def test_everything_that_an_admin_page_loads_is_there(browser: Client, secret: str) -> None:
    """Also the icon, which a browser would otherwise look for at /favicon.ico, and what the styles name."""
    for path in ("/admin/", *pages_of(User), *pages_of(Node)):
        page = browser.get(path).content.decode()
        assert re.search(r'<link\s+rel="icon"\s+href="/static/mark.svg"', page), path
        for url in set(re.findall(r'(?:src|href)="(/static/[^"?]+)', page)):
            found = finders.find(url.removeprefix("/static/"))
            assert isinstance(found, str), f"{path} loads {url}"
            assert not missing_parts(url, found), path


def missing_parts(url: str, file: str) -> list[str]:
    """Files that a stylesheet names and that are not there."""
    if not file.endswith(".css"):
        return []
    folder = url.removeprefix("/static/").rsplit("/", 1)[0]
    with open(file) as sheet:
        named = re.findall(r"url\(['\"]?([^'\")?#]+)", sheet.read())
    parts = [part for part in named if not part.startswith(("data:", "http"))]
    return [part for part in parts if finders.find(re.sub(r"[^/]+/\.\./", "", f"{folder}/{part}")) is None]
