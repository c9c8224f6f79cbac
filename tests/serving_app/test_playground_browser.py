"""The chat page in a real browser: it goes on in the branch that it shows, and says “Waiting” only while it waits."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from r1platform.models import Node, Project
from serving_app import generation
from serving_app.models import Message
from tests.browser.conftest import chromium, site
from tests.browser.signed_in import Site
from tests.pages.b_rows import make_checkpoint, make_conversation, make_deployment, make_run

__all__ = ["chromium", "site"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers stay queued; the test writes them."""
    monkeypatch.setattr(generation, "start", lambda *_: None)


def test_a_message_goes_to_the_branch_that_is_shown_and_the_address_follows(
    site: Site, project: Project, alice: User, node: Node
) -> None:
    deployment = make_deployment(project, make_checkpoint(make_run(project), node))
    conversation = make_conversation(project, alice, deployment)
    first = conversation.messages.get(role="assistant")
    Message.objects.create(conversation=conversation, parent=first.parent, role="assistant", content="No.", state="done")
    site.hello = {"type": "snapshot", "conversation": {"id": conversation.pk}, "messages": []}
    page = site.open(reverse("conversation", args=[conversation.pk]) + f"?at={first.pk}")
    page.locator("[data-composer] textarea").fill("And twice that?")
    page.locator("[data-composer] textarea").press("Enter")
    waiting = page.locator("[data-waiting]")
    expect(waiting).to_have_text("Waiting for the model…")
    answer = conversation.messages.latest("id")
    assert answer.parent is not None and answer.parent.parent_id == first.pk
    page.wait_for_url(f"**?at={answer.pk}")
    site.send(type="delta", message=answer.pk, seq=1, channel="content", text="84")
    expect(page.locator(f"[data-message='{answer.pk}'] [data-content]")).to_have_text("84")
    expect(waiting).to_have_count(0)
    Message.objects.filter(pk=answer.pk).update(content="84", state="done", seq=2)
    page.reload()
    expect(page.locator("[data-message]")).to_have_count(4)
    page.locator(f"[data-message='{answer.pk}'] form[action*=regenerate] button").click()
    expect(waiting).to_have_count(1)
    page.wait_for_url(f"**?at={conversation.messages.latest('id').pk}")


def test_counts_that_are_not_known_are_not_shown(site: Any, project: Project, alice: User) -> None:
    conversation = make_conversation(project, alice)
    conversation.messages.filter(role="assistant").update(usage={"completion_tokens": 3, "prompt_tokens": None})
    site.hello = {"type": "snapshot", "conversation": {"id": conversation.pk}, "messages": []}
    foot = site.open(reverse("conversation", args=[conversation.pk])).locator(".turn-foot").last
    expect(foot).to_contain_text("3 out")
    expect(foot).not_to_contain_text("None")


def test_enter_sends_the_first_message_as_it_sends_every_other(site: Site, project: Project, node: Node) -> None:
    make_deployment(project, make_checkpoint(make_run(project), node))
    page = site.open(reverse("playground"))
    text = page.get_by_label("Your first message")
    text.press("Enter")
    text.fill("What is")
    text.press("Shift+Enter")
    expect(text).to_have_value("What is\n")
    text.press_sequentially("17 + 25?")
    assert not Message.objects.exists()
    text.press("Enter")
    expect(page.locator("[data-waiting]")).to_have_count(1)
    assert Message.objects.get(role="user").content.splitlines() == ["What is", "17 + 25?"]


def test_a_message_that_was_too_long_is_edited_and_the_code_follows_the_branch(
    site: Site, project: Project, alice: User, node: Node
) -> None:
    conversation = make_conversation(project, alice, make_deployment(project, make_checkpoint(make_run(project), node)))
    conversation.messages.filter(role="assistant").update(
        content="", reasoning="", state="failed", usage={"error_code": "context_length_exceeded"}
    )
    site.hello = {"type": "snapshot", "conversation": {"id": conversation.pk}, "messages": []}
    page = site.open(reverse("conversation", args=[conversation.pk]))
    page.get_by_role("button", name="Edit the message").click()
    page.locator("[data-edit-form] textarea").fill("What is 2 + 2?")
    page.get_by_role("button", name="Send as a new branch").click()
    expect(page.locator("[data-waiting]")).to_have_count(1)
    page.locator("summary", has_text="More").click()
    page.get_by_role("button", name="As code").click()
    code = page.locator("#chat-code pre").first
    expect(code).to_contain_text("What is 2 + 2?")
    expect(code).not_to_contain_text("17 + 25")


def test_judging_by_clicks_stays_on_the_page(site: Site, project: Project, alice: User, node: Node) -> None:
    checkpoint = make_checkpoint(make_run(project), node)
    old, new = make_deployment(project, checkpoint), make_deployment(project, checkpoint, name="sums-new")
    conversation = make_conversation(project, alice, old)
    first = conversation.messages.get(role="assistant")
    Message.objects.filter(pk=first.pk).update(column=0, deployment=old, tokens=[["It", -0.1, [["It", -0.1], ["No", -2.3]]]])
    second = Message.objects.create(
        conversation=conversation, parent=first.parent, role="assistant", content="43", column=1, deployment=new
    )
    site.hello = {"type": "snapshot", "conversation": {"id": conversation.pk}, "messages": []}
    page = site.open(reverse("conversation", args=[conversation.pk]))
    left, right = (page.locator(f"[data-message='{m.pk}']") for m in (first, second))
    right.get_by_role("button", name="This is better").click()
    expect(right.locator(".badge")).to_have_text("Your choice")
    expect(page.locator("[data-composer] [name=parent]")).to_have_value(str(second.pk))
    left.get_by_role("button", name="Bad", exact=True).click()
    left.get_by_text("Say why").click()
    left.get_by_label("Wrong", exact=True).check()
    left.get_by_role("button", name="Save").click()
    expect(left.locator(".why .tag")).to_have_text("Wrong")
    left.get_by_text("Token probabilities").click()
    left.locator(".token summary").click()
    expect(left.locator(".token .menu-item")).to_contain_text("No")
    left.locator(".token .menu-item").click()
    expect(page.locator("[data-waiting]")).to_have_count(1)
    assert Message.objects.latest("pk").prefix == "No"
    page.goto(page.url.split("/playground/")[0] + reverse("review-queue"))
    page.keyboard.press("j")
    page.keyboard.press("a")
    expect(page.locator("[data-judged]")).to_have_count(1)
