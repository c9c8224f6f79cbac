"""The run's socket: every event after the cursor, once and in order, whatever was missed; and who may listen."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from r1platform.lib.live import apublish
from r1platform.models import Membership, Node, Project
from tests.sockets import Socket
from tests.training_app.rows import make_attempt, make_run, rundir_of, tell
from training_app import consumers
from training_app.consumers import OverviewConsumer, RunConsumer
from training_app.ingest import Ingest
from training_app.models import PhaseRun

pytestmark = pytest.mark.django_db(transaction=True)


class Story:
    """A run that tells one event at a time."""

    def __init__(self, run: PhaseRun, node: Node) -> None:
        self.run, self.seq = run, 0
        self.attempt = make_attempt(run, node)
        self.rundir = rundir_of(self.attempt)
        self.ingest = Ingest(self.attempt, self.rundir, fence=self.attempt.fence)

    def tell(self, number: int = 1) -> None:
        for _ in range(number):
            self.seq += 1
            tell(self.rundir, self.seq, "warning", message=f"event {self.seq}")
        self.ingest.take()


@pytest.fixture
def story(project: Project, alice: User, node: Node, redis_url: str) -> Story:
    return Story(make_run(project, alice, state="running"), node)


def socket(story: Story, client: Client | None, after: int | str = 0) -> Socket:
    path = f"/ws/runs/{story.run.pk}/?after={after}"
    return Socket.of(RunConsumer, path, client=client, kwargs={"run_id": story.run.pk})


async def seqs(found: Socket, number: int) -> list[int]:
    return [(await found.receive())["seq"] for _ in range(number)]


async def test_what_was_missed_and_what_comes(story: Story, client_alice: Client) -> None:
    await sync_to_async(story.tell)(3)
    found = socket(story, client_alice)
    assert await found.open()
    hello = await found.receive()
    assert hello["type"] == "hello" and hello["state"]["state"] == "running"
    assert await seqs(found, 3) == [1, 2, 3]
    await sync_to_async(story.tell)(2)
    assert await seqs(found, 2) == [4, 5]
    await found.close()


async def test_a_socket_that_comes_back_goes_on_where_it_was(story: Story, client_alice: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(consumers, "PAGE", 4)
    await sync_to_async(story.tell)(10)
    first = socket(story, client_alice)
    assert await first.open()
    last = (await first.receive())["last_id"]
    events = [await first.receive() for _ in range(10)]
    assert [event["seq"] for event in events] == list(range(1, 11)) and events[-1]["id"] == last
    await first.close()
    await sync_to_async(story.tell)(7)
    second = socket(story, client_alice, after=events[5]["id"])
    assert await second.open()
    await second.receive()
    assert await seqs(second, 11) == list(range(7, 18))
    await second.close()


async def test_a_lost_message_only_delays(story: Story, client_alice: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(consumers, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr("training_app.ingest.publish", lambda *_, **__: None)
    found = socket(story, client_alice)
    assert await found.open()
    await found.receive()
    await sync_to_async(story.tell)(2)
    assert await seqs(found, 2) == [1, 2]
    await found.close()


@pytest.mark.parametrize("after", ["-1", "x", "9" * 40, "１"])
async def test_a_strange_cursor_is_the_beginning(after: str, story: Story, client_alice: Client) -> None:
    await sync_to_async(story.tell)()
    found = socket(story, client_alice, after=after)
    assert await found.open()
    await found.receive()
    assert await seqs(found, 1) == [1]
    await found.close()


async def test_states_are_told_and_strangers_hear_nothing(
    story: Story, client_bob: Client, client_charlie: Client
) -> None:
    stranger, nobody = socket(story, client_charlie), socket(story, None)
    assert await stranger.open() and await stranger.closing_code() == 4404
    assert await nobody.open() and await nobody.closing_code() == 4401
    viewer = socket(story, client_bob)
    assert await viewer.open()
    await viewer.receive()
    await apublish(f"run.{story.run.pk}", "state", state="stopping", reason="asked")
    assert await viewer.receive() == {"type": "state", "state": "stopping", "reason": "asked"}
    await viewer.close()


async def test_the_overview_hears_of_its_own_projects_only(
    project: Project, client_bob: Client, client_charlie: Client, redis_url: str
) -> None:
    mine, theirs = (Socket.of(OverviewConsumer, "/ws/overview/", client=client) for client in (client_bob, client_charlie))
    for found in (mine, theirs):
        assert await found.open()
        assert (await found.receive())["type"] == "hello"
    await apublish(f"overview.{project.pk}", "state", run=1, state="running")
    assert (await mine.receive())["run"] == 1
    assert await theirs.receive_nothing()
    await mine.close()
    await theirs.close()


async def test_a_member_who_is_removed_hears_no_more(story: Story, client_bob: Client, bob: User, monkeypatch: Any) -> None:
    monkeypatch.setattr("r1platform.lib.live.CHECK_SECONDS", 0.05)
    found = socket(story, client_bob)
    assert await found.open()
    await found.receive()
    await sync_to_async(Membership.objects.filter(user=bob).delete)()
    assert await found.closing_code() == 4401
