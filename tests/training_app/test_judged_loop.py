"""From an answer to the next run: judged, reviewed, prepared by the real process, and taken by the form that trains on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Node, Project
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS
from serving_app.models import Conversation, Judgement, Message
from tests.pages.b_rows import make_checkpoint, make_conversation, make_deployment, make_run
from training_app import selectors, services
from training_app.models import DatasetVersion, PhaseRun

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("form", "template", "row"),
    [(PAIRS, "preference", {"chosen": "<think>17+25=42</think>42", "rejected": "<think>7+5=12</think>It is **42**."}),
     (DEMONSTRATIONS, "fine_tuning", {"completion": "<think>17+25=42</think>42"})],
)  # fmt: skip
def test_what_people_said_trains_the_next_model(
    form: str, template: str, row: dict[str, str], project: Project, node: Node, alice: User, client_alice: Client,
    client_erin: Client, prepare: Callable[[], None],
) -> None:  # fmt: skip
    checkpoint = make_checkpoint(make_run(project), node)
    chat = make_conversation(project, alice, make_deployment(project, checkpoint))
    chat.messages.filter(role="assistant").update(deployment=chat.deployment)
    for _ in range(2):
        rewrite(client_alice, chat)
    said = Judgement.objects.get()
    client_erin.post(reverse("review-act"), {"judgement": said.pk, "to": "accepted"})
    client_erin.post(reverse("judged-datasets"), {"form": form, "name": "Judged", "held_out_fraction": "0"})
    prepare()
    version = DatasetVersion.objects.get()
    assert (version.state, version.num_rows) == ("ready", 1), version.state_reason
    [made] = selectors.version_preview(version)["rows"]
    assert made["prompt"] == "What is 17 + 25?" and {name: made[name] for name in row} == row
    address = f"{reverse('pipeline-new')}?dataset_version={version.pk}&starts_from={checkpoint.pk}&template={template}"
    assert address.replace("&", "&amp;") in client_erin.get(reverse("judged-datasets")).content.decode()
    page = client_erin.get(address).content.decode()
    for value in (version.pk, checkpoint.pk):
        assert f'<option value="{value}" selected' in page
    plan = services.pipeline_from_template(
        project=project, user=alice, template=template, name="Next", dataset_version=version, starts_from=checkpoint
    )
    services.pipeline_launch(pipeline=plan, user=alice)
    queued = PhaseRun.objects.get(state="queued")
    assert queued.dataset_version == version and queued.starts_from == checkpoint
    assert f"Run {queued.pk}" in client_erin.get(reverse("judged-datasets")).content.decode()


def rewrite(client: Client, chat: Conversation) -> Any:
    """The same answer written anew; the second time it takes the first one's place."""
    answer = Message.objects.get(conversation=chat, role="assistant", edit_of=None)
    sent = {"message": answer.pk, "content": "42", "reasoning": "17+25=42"}
    return client.post(reverse("conversation-act", args=[chat.pk, "rewrite"]), sent)
