"""The playground: whose conversations, branches, what a message shows in each state, and what a person can do."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Membership, Node, Project
from serving_app.models import Conversation, Deployment, Message
from serving_app.services import deployment_delete
from serving_app.states import GenerationState
from serving_app.texts import MAX_TITLE, title_of
from serving_app.views.thread import thread_of
from tests.pages.b_rows import make_checkpoint, make_conversation, make_deployment, make_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment(project: Project, node: Node) -> Deployment:
    return make_deployment(project, make_checkpoint(make_run(project), node))


@pytest.fixture
def conversation(project: Project, alice: User, deployment: Deployment) -> Conversation:
    return make_conversation(project, alice, deployment)


def test_a_member_who_left_does_not_see_it_any_more(
    conversation: Conversation, alice: User, client_alice: Client
) -> None:
    Membership.objects.filter(user=alice).delete()
    assert client_alice.get(reverse("conversation", args=[conversation.pk])).status_code == 404


def test_a_link_prefills_and_never_sends(deployment: Deployment, client_alice: Client) -> None:
    page = client_alice.get(reverse("playground"), {"text": "What is <b>1</b> + 1?", "deployment": deployment.pk})
    assert "What is &lt;b&gt;1&lt;/b&gt; + 1?" in page.content.decode()
    assert not Message.objects.exists()


def test_a_first_message_makes_the_conversation(deployment: Deployment, client_bob: Client, bob: User) -> None:
    sent = {
        "deployment": deployment.pk,
        "content": "What is 17 + 25?\nQuick.",
        "temperature": "0.2",
        "max_tokens": "64",
    }
    answer = client_bob.post(reverse("playground"), sent)
    made = Conversation.objects.get()
    assert answer["Location"] == reverse("conversation", args=[made.pk])
    assert made.user == bob and made.title == "What is 17 + 25?"
    assert made.parameters == {"temperature": 0.2, "max_tokens": 64}
    assert [m.role for m in made.messages.all()] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"content": "  "}, "Write something"), ({"temperature": "9"}, "2"), ({"deployment": 10**9}, "valid choice")],
)
def test_a_chat_that_cannot_begin_says_why_and_keeps_the_text(
    change: dict[str, Any], words: str, deployment: Deployment, client_alice: Client
) -> None:
    sent = {"deployment": deployment.pk, "content": "Keep me", "max_tokens": "64"} | change
    answer = client_alice.post(reverse("playground"), sent)
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not Conversation.objects.exists()


def test_a_model_of_another_project_cannot_be_asked(charlie: User, node: Node, client_alice: Client) -> None:
    elsewhere = Project.objects.get(memberships__user=charlie)
    theirs = make_deployment(elsewhere, make_checkpoint(make_run(elsewhere), node), name="theirs")
    assert client_alice.post(reverse("playground"), {"deployment": theirs.pk, "content": "hi"}).status_code == 422


def test_sending_answers_json_to_the_page_and_leads_back_without_script(
    conversation: Conversation, client_alice: Client
) -> None:
    address = reverse("conversation-act", args=[conversation.pk, "send"])
    answer = client_alice.post(address, {"content": "And twice that?"}, headers={"Accept": "application/json"})
    assert answer.status_code == 200 and answer.json() == {"ok": True}
    assert conversation.messages.filter(role="user").count() == 2


def test_what_is_wrong_comes_back_as_one_sentence(conversation: Conversation, client_alice: Client) -> None:
    address = reverse("conversation-act", args=[conversation.pk, "send"])
    answer = client_alice.post(address, {"content": ""}, headers={"Accept": "application/json"})
    assert answer.status_code == 400 and answer["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"] == "The message is empty. Write something first."
    assert "The message is empty" in client_alice.post(address, {"content": ""}, follow=True).content.decode()


def test_a_message_of_another_conversation_cannot_be_reached_through_ones_own(
    conversation: Conversation, bob: User, project: Project, client_alice: Client
) -> None:
    theirs = make_conversation(project, bob).messages.get(role="assistant")
    address = reverse("conversation-act", args=[conversation.pk, "regenerate"])
    assert client_alice.post(address, {"message": theirs.pk}).status_code == 404


def test_answering_again_branches_and_both_answers_can_be_seen(
    conversation: Conversation, client_alice: Client
) -> None:
    first = conversation.messages.get(role="assistant")
    client_alice.post(reverse("conversation-act", args=[conversation.pk, "regenerate"]), {"message": first.pk})
    second = conversation.messages.filter(role="assistant").latest("id")
    page = client_alice.get(reverse("conversation", args=[conversation.pk]))
    assert [turn.message.pk for turn in page.context["turns"]][-1] == second.pk
    old = client_alice.get(reverse("conversation", args=[conversation.pk]), {"at": first.pk})
    assert old.context["turns"][-1].message.pk == first.pk
    assert old.context["turns"][-1].siblings == (first.pk, second.pk)


@pytest.mark.parametrize("state", GenerationState.values)
def test_every_state_of_an_answer_is_shown(state: str, conversation: Conversation, client_alice: Client) -> None:
    conversation.messages.filter(role="assistant").update(
        state=state, content="so far", state_reason="Because of a test."
    )
    page = client_alice.get(reverse("conversation-thread", args=[conversation.pk])).content.decode()
    assert f'data-state="{state}"' in page and "so far" in page
    stoppable = state in {"queued", "thinking", "answering"}
    assert (reverse("conversation-act", args=[conversation.pk, "stop"]) in page) == stoppable
    assert (reverse("conversation-act", args=[conversation.pk, "regenerate"]) in page) == (not stoppable)


def test_an_answer_shows_its_thinking_its_numbers_and_is_rendered_safely(
    conversation: Conversation, client_alice: Client
) -> None:
    conversation.messages.filter(role="assistant").update(
        content="**42** <script>alert(1)</script> $x^2$", reasoning="<img src=x onerror=alert(1)>"
    )
    page = client_alice.get(reverse("conversation-thread", args=[conversation.pk])).content.decode()
    assert "<strong>42</strong>" in page and "<msup>" in page
    assert "<script>" not in page and "<img" not in page
    assert "first token 40 ms" in page and "9 in, 12 out" in page and "5 tokens" in page


def test_an_unfinished_answer_is_text_only(conversation: Conversation, client_alice: Client) -> None:
    conversation.messages.filter(role="assistant").update(content="**4", state="answering")
    page = client_alice.get(reverse("conversation-thread", args=[conversation.pk])).content.decode()
    assert "**4" in page and "<strong>" not in page


def test_an_empty_playground_teaches(client_alice: Client, client_bob: Client) -> None:
    assert "No model is ready to chat" in client_alice.get(reverse("playground")).content.decode()
    assert "An editor of this project can deploy one" in client_bob.get(reverse("playground")).content.decode()


def test_a_deleted_model_is_said(conversation: Conversation, client_alice: Client) -> None:
    conversation.deployment = None
    conversation.save()
    assert "was deleted" in client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()


def _tree(*pairs: tuple[int, int | None]) -> list[Message]:
    return [Message(pk=pk, parent_id=parent, role="user") for pk, parent in pairs]


def test_the_shown_branch_is_the_newest_or_the_wanted_one() -> None:
    tree = _tree((1, None), (2, 1), (3, 2), (4, 1), (5, 4))
    assert [t.message.pk for t in thread_of(tree)] == [1, 4, 5]
    assert [t.message.pk for t in thread_of(tree, at=2)] == [1, 2, 3]
    assert [t.message.pk for t in thread_of(tree, at=99)] == [1, 4, 5]
    assert [(t.position, t.previous, t.next) for t in thread_of(tree, at=2)][1] == (1, None, 4)
    assert thread_of([]) == []


def thread_page(client: Client, conversation: Conversation) -> str:
    return client.get(reverse("conversation-thread", args=[conversation.pk])).content.decode()


@pytest.mark.parametrize("state", ["stopped", "starting", "failed"])
def test_a_link_to_a_model_that_does_not_answer_says_so_and_chooses_none(
    state: str, deployment: Deployment, project: Project, node: Node, client_alice: Client
) -> None:
    other = make_deployment(project, make_checkpoint(make_run(project), node, 9), name="other", state=state)
    page = client_alice.get(reverse("playground"), {"deployment": other.pk})
    text = page.content.decode()
    assert f"“other” is {state} and does not answer now" in text and "Choose a model…" in text
    assert page.context["form"].initial["deployment"] is None and 'value="" selected>' in text
    assert "does not answer now" not in client_alice.get(reverse("playground")).content.decode()


def test_a_link_to_a_model_elsewhere_names_it_only_to_its_members(
    deployment: Deployment, alice: User, charlie: User, node: Node, client_alice: Client
) -> None:
    elsewhere = Project.objects.get(memberships__user=charlie)
    theirs = make_deployment(elsewhere, make_checkpoint(make_run(elsewhere), node), name="theirs")
    page = client_alice.get(reverse("playground"), {"deployment": theirs.pk})
    assert "not yours to see" in page.content.decode() and "theirs" not in page.content.decode()
    assert page.context["form"].initial["deployment"] is None
    Membership.objects.create(project=elsewhere, user=alice, role="viewer")
    session = client_alice.get(reverse("playground"), {"deployment": theirs.pk}).content.decode()
    assert f"“theirs” belongs to the project “{elsewhere.name}”" in session


def test_titles_end_at_a_word() -> None:
    assert title_of("What is 17 + 25?\nQuick.") == "What is 17 + 25?"
    long = title_of("seventeen and twenty-five and " * 10)
    assert len(long) <= MAX_TITLE and long.endswith("…") and long[:-1].split()[-1] in {"seventeen", "and", "twenty-five"}
    assert title_of("x" * 200) == "x" * (MAX_TITLE - 1) + "…"
    exact = "a" * 40 + " " + "b" * 39
    assert title_of(exact) == exact and title_of(exact + "c") == "a" * 40 + "…"


@pytest.mark.parametrize(
    ("finish", "content", "words"),
    [
        ("length", "", "still thinking when the length limit came"),
        ("length", "It is", "The length limit cut this answer"),
        ("stop", "", "ended without an answer"),
        (None, "", "ended without an answer"),
    ],
)
def test_only_what_the_length_limit_ended_is_said_to_be_so(
    finish: str | None, content: str, words: str, conversation: Conversation, client_alice: Client
) -> None:
    conversation.messages.filter(role="assistant").update(content=content, usage={"finish_reason": finish})
    page = thread_page(client_alice, conversation)
    assert words in page and ("length limit" in page) == (finish == "length")


def test_a_failed_answer_says_what_is_kept_and_a_long_message_can_be_edited(
    conversation: Conversation, client_alice: Client
) -> None:
    answer = conversation.messages.filter(role="assistant")
    answer.update(state="failed", state_reason="It broke.")
    assert "What was written is kept" in thread_page(client_alice, conversation)
    answer.update(content="", reasoning="")
    page = thread_page(client_alice, conversation)
    assert "What was written is kept" not in page and "Answer again to retry." in page and "data-edit-said" not in page
    answer.update(usage={"error_code": "context_length_exceeded"})
    page = thread_page(client_alice, conversation)
    assert f'data-edit-said="{answer.get().parent_id}"' in page and "to retry" not in page


def test_the_thread_brings_its_code_up_to_the_last_question(conversation: Conversation, client_alice: Client) -> None:
    page = thread_page(client_alice, conversation)
    code = page.partition("<template data-code>")[2]
    assert "What is 17 + 25?" in code and "It is **42**" not in code and "assistant" not in code
    assert "<template data-code>" in client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()
    conversation.messages.all().delete()
    Conversation.objects.update(system_prompt="Be brief.")
    empty = thread_page(client_alice, conversation)
    assert empty.index("Be brief.") < empty.index("What is 17 + 25?")


def test_a_deleted_model_keeps_its_name(
    conversation: Conversation, deployment: Deployment, alice: User, client_alice: Client
) -> None:
    deployment_delete(deployment=deployment, user=alice)
    page = client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()
    assert "sums-r1 (deleted)" in page and "--deleted-" not in page
    assert reverse("deployment-detail", args=[deployment.pk]) not in page
