"""Links to a conversation, exports, presets, and chats with a step of a run: who may, what is shown, what ends them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from model_core.errors import ConfigError
from r1platform.models import Membership, Node, Project
from serving_app import services
from serving_app.models import Conversation, ConversationShare, Deployment, Message, Preset
from serving_app.services.checkpoint_chat import IDLE_SECONDS
from tests.pages.b_rows import make_checkpoint, make_conversation, make_deployment, make_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment(project: Project, node: Node) -> Deployment:
    return make_deployment(project, make_checkpoint(make_run(project), node))


@pytest.fixture
def conversation(project: Project, alice: User, deployment: Deployment) -> Conversation:
    made = make_conversation(project, alice, deployment)
    made.messages.filter(role="assistant").update(deployment=deployment)
    return made


def act(client: Client, conversation: Conversation, verb: str, **values: Any) -> Any:
    return client.post(reverse("conversation-act", args=[conversation.pk, verb]), values, headers={"Accept": "application/json"})


def test_a_link_shows_the_branch_as_it_was_to_members_until_it_is_revoked(
    conversation: Conversation, alice: User, client_alice: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    leaf = conversation.messages.get(role="assistant")
    assert act(client_alice, conversation, "share", at=leaf.pk).status_code == 200
    act(client_alice, conversation, "share", at=leaf.pk)
    share = ConversationShare.objects.get()
    later = Message.objects.create(conversation=conversation, parent=leaf, role="user", content="Said afterwards")
    Message.objects.create(conversation=conversation, parent=later, role="assistant", content="Answered afterwards")
    Message.objects.create(conversation=conversation, parent=leaf.parent, role="assistant", content="Another branch")
    address = reverse("conversation-shared", args=[share.token])
    for reader in (client_alice, client_bob):
        page = reader.get(address).content.decode()
        assert "<strong>42</strong>" in page and "afterwards</div>" not in page and "Another branch" not in page
        assert "<form" not in page.partition('<div class="thread">')[2].partition("</main>")[0]
    assert client_charlie.get(address).status_code == 404 and client.get(address).status_code == 302
    assert share.token in client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()
    assert act(client_bob, conversation, "unshare", token=share.token).status_code == 404
    assert act(client_alice, conversation, "unshare", token=share.token).status_code == 200
    assert client_bob.get(address).status_code == client_alice.get(address).status_code == 404
    Membership.objects.filter(user__username="bob").delete()


def test_a_member_who_left_reads_no_link(conversation: Conversation, alice: User, bob: User, client_bob: Client) -> None:
    share = services.conversation_share(conversation=conversation, user=alice)
    Membership.objects.filter(user=bob).delete()
    assert client_bob.get(reverse("conversation-shared", args=[share.token])).status_code == 404


def test_of_a_comparison_every_column_is_shared(conversation: Conversation, alice: User, client_bob: Client) -> None:
    first = conversation.messages.get(role="assistant")
    Message.objects.filter(pk=first.pk).update(column=0)
    Message.objects.create(conversation=conversation, parent=first.parent, role="assistant", content="Beside it", column=1)
    share = services.conversation_share(conversation=conversation, user=alice, leaf=first)
    page = client_bob.get(reverse("conversation-shared", args=[share.token])).content.decode()
    assert "Beside it" in page and "<strong>42</strong>" in page and "This is better" not in page


def test_what_cannot_be_shared(conversation: Conversation, alice: User) -> None:
    conversation.messages.filter(role="assistant").update(state="answering")
    with pytest.raises(ConfigError, match="still being written"):
        services.conversation_share(conversation=conversation, user=alice)
    conversation.messages.all().delete()
    with pytest.raises(ConfigError, match="nothing to share"):
        services.conversation_share(conversation=conversation, user=alice)


def test_an_export_is_the_whole_tree_as_json_and_the_branch_as_markdown(
    conversation: Conversation, client_alice: Client, client_bob: Client, client: Client
) -> None:
    address = reverse("conversation-export", args=[conversation.pk])
    found = client_alice.get(address, {"as": "json"})
    assert found["Content-Disposition"] == 'attachment; filename="adding-two-numbers.json"'
    assert [m["content"] for m in found.json()["messages"]] == ["What is 17 + 25?", "It is **42**."]
    assert found.json()["branch"] == [m["id"] for m in found.json()["messages"]] and found.json()["model"] == "sums-r1"
    text = client_alice.get(address, {"as": "markdown"}).content.decode()
    assert text.startswith("# Adding two numbers\n\n## User\n\nWhat is 17 + 25?\n\n## sums-r1\n\n> *Thinking*\n>\n> 7+5=12\n\nIt is **42**.")
    assert client_alice.get(address, {"as": "exe"}).status_code == 404
    assert client_bob.get(address).status_code == 404 and client.get(address).status_code == 302


def test_a_preset_fills_the_form_of_its_user_and_when_shared_of_the_project(
    conversation: Conversation, deployment: Deployment, project: Project, client_alice: Client, client_bob: Client,
    client_charlie: Client, client: Client,
) -> None:  # fmt: skip
    sent = {"deployment": deployment.pk, "temperature": "0.3", "system_prompt": "Be brief."}
    assert act(client_alice, conversation, "preset", preset_name="Brief", **sent).status_code == 200
    again = act(client_alice, conversation, "preset", preset_name="Brief", **sent)
    assert again.status_code == 400 and "already" in again.json()["detail"]
    assert act(client_alice, conversation, "preset", preset_name="", **sent).status_code == 400
    act(client_alice, conversation, "preset", preset_name="For all", is_shared="1", **sent)
    own, shared = Preset.objects.order_by("pk")
    page = client_alice.get(reverse("playground"), {"preset": own.pk})
    assert page.context["form"].initial["temperature"] == 0.3 and "Be brief." in page.content.decode()
    assert {p.name for p in client_bob.get(reverse("playground")).context["presets"]} == {"For all"}
    assert "temperature" not in client_bob.get(reverse("playground"), {"preset": own.pk}).context["form"].initial
    address = reverse("preset-delete", args=[shared.pk])
    assert client_bob.post(address).status_code == client_charlie.post(address).status_code == 404
    assert client.post(address).status_code == 302 and Preset.objects.count() == 2
    client_alice.post(address)
    assert Preset.objects.get() == own


def test_the_api_shares_and_keeps_presets(
    conversation: Conversation, api_alice: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    url = f"/api/v1/conversations/{conversation.pk}/"
    made = api_alice.post(f"{url}share/", {})
    assert made.status_code == 201 and made.json()["path"].endswith(f"{made.json()['token']}/")
    assert [one["token"] for one in api_alice.get(f"{url}shares/").json()] == [made.json()["token"]]
    for api, status in ((api_bob, 404), (api_charlie, 404), (api_anonymous, 401)):
        assert api.post(f"{url}share/", {}).status_code == status
        assert api.post(f"{url}unshare/", {"token": made.json()["token"]}).status_code == status
    assert api_alice.post(f"{url}unshare/", {"token": made.json()["token"]}).status_code == 204
    assert api_alice.get(f"{url}shares/").json() == []
    preset = api_alice.post("/api/v1/presets/", {"name": "Cold", "parameters": {"temperature": 0}, "is_shared": True})
    assert preset.status_code == 201, preset.content
    assert api_alice.post("/api/v1/presets/", {"name": "Hot", "parameters": {"temperature": 9}}).status_code == 400
    one = f"/api/v1/presets/{preset.json()['id']}/"
    assert api_bob.get(one).json()["name"] == "Cold" and api_charlie.get(one).status_code == 404
    assert api_bob.delete(one).status_code == api_charlie.delete(one).status_code == 404
    assert api_anonymous.get("/api/v1/presets/").status_code == 401
    assert api_alice.delete(one).status_code == 204


def test_a_step_that_is_not_deployed_is_offered_to_editors(
    project: Project, node: Node, deployment: Deployment, client_alice: Client, client_bob: Client, client_charlie: Client,
    client: Client,
) -> None:  # fmt: skip
    step = make_checkpoint(make_run(project), node, 12)
    address = reverse("checkpoint-chat", args=[step.pk])
    page = client_alice.get(reverse("playground"), {"checkpoint": step.pk}).content.decode()
    assert address in page and "Start it and chat" in page
    assert address not in client_bob.get(reverse("playground"), {"checkpoint": step.pk}).content.decode()
    assert client_bob.post(address, {"content": "hi"}).status_code == 403
    assert client_charlie.post(address, {"content": "hi"}).status_code == 404
    assert client.post(address, {"content": "hi"}).status_code == 302
    served = deployment.revisions.get().checkpoint
    assert address not in client_alice.get(reverse("playground"), {"checkpoint": served.pk}).content.decode()
    assert client_alice.post(address, {"content": " "}, follow=True).status_code == 200
    assert Deployment.objects.count() == 1, "without a message nothing is made"
    made = client_alice.post(address, {"content": "hi"})
    chat = Conversation.objects.get()
    assert made["Location"] == reverse("conversation", args=[chat.pk]) and chat.messages.count() == 2
    assert chat.deployment is not None and chat.deployment.name == f"run-{step.run_id}-step-12"
    revision = chat.deployment.revisions.get()
    assert (revision.checkpoint, revision.engine, chat.deployment.state) == (step, "builtin", "pending")
    assert chat.deployment.idle_seconds == IDLE_SECONDS, "looking at many steps holds not as many devices"


def test_a_chat_with_a_step_uses_the_deployment_that_serves_it(
    project: Project, deployment: Deployment, alice: User, client_alice: Client
) -> None:
    step = deployment.revisions.get().checkpoint
    made = services.checkpoint_chat(project=project, user=alice, checkpoint=step, content="hi")
    assert made.deployment == deployment and made.messages.count() == 2
    with pytest.raises(ConfigError, match="empty"):
        services.checkpoint_chat(project=project, user=alice, checkpoint=step, content=" ")
    assert Conversation.objects.count() == 1
    Deployment.objects.update(state="stopped", desired_replicas=0)
    services.checkpoint_chat(project=project, user=alice, checkpoint=step, content="hi")
    deployment.refresh_from_db()
    assert deployment.state == "pending" and deployment.desired_replicas == 1
