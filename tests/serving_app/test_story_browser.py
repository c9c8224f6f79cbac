"""The story of a deployment through its pages: deployed, ready, a chat streams, a new revision is shifted and rolled back.

Nothing is faked but Celery, whose part threads play: the browser, the sockets, the gateway's way to the engine, the
supervisors and the engine processes are real.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.urls import reverse
from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from r1platform.lib.storage import run_dir
from serving_app.models import Deployment, Message, Replica
from serving_app.placement import deployments_to_reconcile, reconcile_deployment
from tests.browser.conftest import chromium
from tests.browser.signed_in import Site
from tests.serving_app.conftest import Served, Worker, until
from training_app.models import Checkpoint

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
STARTS_MS = 60_000


class RealSite(Site):
    """Its sockets are the platform's own."""

    def _socket(self, route: WebSocketRoute) -> None:
        route.connect_to_server()


@pytest.fixture
def site(chromium: BrowserContext, web: Served, alice: User, worker: Worker, redis_url: str) -> Iterator[RealSite]:
    made = RealSite(chromium, web.url, alice)
    yield made
    made.leave()
    assert made.errors == []


@pytest.fixture
def rounds(worker: Worker) -> Iterator[None]:
    """The rounds of the reconciler, one after the other."""
    over = threading.Event()

    def go_round() -> None:
        try:
            while not over.wait(0.1):
                for deployment_id in deployments_to_reconcile():
                    reconcile_deployment(deployment_id)
        finally:
            connections.close_all()

    thread = threading.Thread(target=go_round, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(timeout=20)
    assert not thread.is_alive()


def write_tiny_model(checkpoint: Checkpoint) -> None:
    """Weights that were never trained, where the checkpoint's are."""
    from model_core.config import ModelConfig, TokenizerConfig
    from model_core.data.dataset import Row
    from model_core.data.tokenizer import train_tokenizer
    from model_core.model import Transformer, save_pretrained

    text = "What is 17 + 25? <think>7+5=12 carry 1; 1+2+1=4</think>42"
    rows = [Row(prompt=text, completion=text, answer="42", task="", meta={})]
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), rows)
    config = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 128}
    directory = run_dir(checkpoint.run_id, 1) / "checkpoints" / "step_00000012" / "model"
    shutil.rmtree(directory)
    save_pretrained(Transformer(ModelConfig.parse(config)), directory, tokenizer)


def deploy_on(page: Page, site: Site, engine: str, checkpoint: Checkpoint) -> Deployment:
    site.open(reverse("deployment-new") + f"?checkpoint={checkpoint.pk}")
    page.locator("[name=name]").fill("sums")
    if page.locator("[name=engine]").input_value() != engine:
        with page.expect_response("**/deployments/new/engine/**"):
            page.locator("[name=engine]").select_option(engine)
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.locator("h1 ~ [data-part=state]")).to_have_text("Ready", timeout=STARTS_MS)
    expect(page.get_by_text("answers requests")).to_have_count(1)
    return Deployment.objects.get(name="sums")


def chat_streams(page: Page, said: str, beginning: str) -> Message:
    """The answer, which the page shows while it is still being written when a `beginning` is expected of it."""
    page.get_by_role("link", name="Chat", exact=True).first.click()
    page.get_by_label("Your first message").fill(said)
    page.get_by_role("button", name="Start the chat").click()
    answer = page.locator("[data-message]").last
    if beginning:
        expect(answer.locator("[data-content]")).to_contain_text(beginning)
        assert Message.objects.get(role="assistant").state == "answering", "it is shown before it is whole"
    until(lambda: Message.objects.filter(role="assistant", state="done").exists(), seconds=30)
    return Message.objects.get(role="assistant")


@pytest.mark.parametrize(
    ("engine", "said", "beginning"),
    [
        pytest.param("stub", "count 40 0.05", "0 1 2", id="stub"),
        pytest.param("builtin", "17 + 25", "", id="builtin"),
    ],
)
def test_deploy_chat_shift_and_roll_back_through_the_pages(
    site: RealSite, rounds: None, checkpoint: Checkpoint, engine: str, said: str, beginning: str
) -> None:
    if engine == "builtin":
        write_tiny_model(checkpoint)
    page = site.page
    deployment = deploy_on(page, site, engine, checkpoint)
    answer = chat_streams(page, said, beginning)
    assert answer.usage["completion_tokens"] > 0 and answer.deployment == deployment
    first = Replica.objects.get()
    site.open(reverse("deployment-detail", args=[deployment.pk]))
    page.get_by_role("link", name="New revision").click()
    page.locator("[name=plan-mode]").select_option("by_hand")
    page.get_by_role("button", name="Start the revision").click()
    expect(page.get_by_role("heading", name="Revision 2 takes over")).to_be_visible()
    expect(page.get_by_text("It is ready and waits for you")).to_be_visible(timeout=STARTS_MS)
    page.get_by_role("button", name="Give it 10 %").click()
    expect(page.get_by_text("It gets 10 % of the requests, revision 1 the others.")).to_be_visible()
    expect(page.get_by_text("answers 90 % of the requests")).to_have_count(1)
    expect(page.get_by_text("answers 10 % of the requests")).to_have_count(1)
    page.get_by_placeholder("Reason, if you like").fill("It counts wrong.")
    page.get_by_role("button", name="Roll back", exact=True).click()
    expect(page.get_by_role("heading", name="Revision 2 takes over")).to_have_count(0)
    expect(page.locator(".timeline").get_by_text("It counts wrong.")).to_be_visible()
    expect(page.get_by_text("answers requests")).to_have_count(1)
    until(lambda: Replica.objects.get(revision__number=2).state == "stopped", seconds=30)
    first.refresh_from_db()
    assert first.state == "ready", "the one before never stopped"
    deployment.refresh_from_db()
    assert deployment.state == "ready" and deployment.revisions.get(state="current").number == 1
