"""The loop on a platform as `./r1 up` starts it, in a real browser: what people say of answers becomes data, the data a pipeline,
its model a deployment that is compared with the former; and a revision is shifted and rolled back between real engines.

People write questions and answers; everything else is a click. No number, no name and no address is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from model_core.serving.engines import ENGINES
from tests.end_to_end.browsing import browsing, sign_in
from tests.end_to_end.running import Platform, running, until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
NO_SGLANG = ENGINES.get("sglang")().installed()
TRAINS_MS, STARTS_MS = 240_000, 120_000
FIRST = {
    "phase_config": {"steps": 30, "batch_size": 16},
    "held_out": {"num_problems": 8, "num_problems_during": 0, "max_new_tokens": 24},
}
SAID = {"17+25=": "42", "30+12=": "42", "11+22=": "33"}
"""Questions of the chat and the answers that are written in place of the model's."""


@dataclass
class World:
    """A platform with a project, a model of few steps and its page, signed in."""

    platform: Platform
    page: Page
    project: int
    checkpoint: int

    def deploy(self, name: str) -> int:
        """The model on the built-in engine, ready."""
        api = self.platform.api
        made = api.post("deployments/", project=self.project, name=name, checkpoint=self.checkpoint, engine="builtin")
        until(lambda: api.get(f"deployments/{made['id']}/")["state"] == "ready")
        return int(made["id"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("loop")) as platform, browsing(platform) as page:
        sign_in(page, platform, "Sums")
        api = platform.api
        project = api.get("projects/")["results"][0]["id"]
        dataset = api.post("datasets/", project=project, name="Sums", kind="self")["id"]
        config = {"source": "generated", "source_config": {"task": "sums", "num_train": 200, "num_held_out": 16}}
        version = api.post(f"datasets/{dataset}/versions/", config=config)["id"]
        run = api.post("runs/", project=project, name="sums", phase="cold_start", config=FIRST, dataset_version=version)["id"]
        until(lambda: api.get(f"runs/{run}/")["state"] == "succeeded", seconds=200)
        yield World(platform, page, project, api.get(f"runs/{run}/checkpoints/")[0]["id"])


def test_what_people_say_becomes_the_next_model_by_clicks(world: World) -> None:
    page, former = world.page, world.deploy("sums-1")
    page.goto(f"/deployments/{former}/")
    talk(page)
    review(page)
    make_dataset(page, "Pairs of a better and a worse answer")
    train(page, "Train with preference")
    runs = world.platform.api.get("runs/", name="preference")["results"]
    assert runs[0]["starts_from"] == world.checkpoint
    judged_by = runs[0]["config"]["reward"]["settings"]["preference"]["checkpoint"]
    assert re.search(r"/checkpoints/step_\d+$", judged_by), "the reward model of the same launch, which nobody named"
    deploy_beside(page, "sums-1")
    compare(page, "sums-1")
    make_dataset(page, "Good answers alone")
    train(page, "Fine-tune on it")
    page.get_by_role("link", name="Deploy the checkpoint").click()
    page.get_by_role("link", name="New revision of sums-1").click()
    page.get_by_role("button", name="Start the revision").click()
    expect(page.get_by_role("heading", name="Revision 2 takes over")).to_be_visible()
    expect(page.get_by_text("It gets 10 % of the requests")).to_be_visible(timeout=STARTS_MS)


def talk(page: Page) -> None:
    """Some questions; each answer is rated with a reason and written anew."""
    page.get_by_role("link", name="Chat", exact=True).first.click()
    for number, (question, better) in enumerate(SAID.items()):
        if number:
            page.locator("[data-composer] textarea").fill(question)
            page.get_by_role("button", name="Send", exact=True).click()
        else:
            page.get_by_label("Your first message").fill(question)
            page.get_by_role("button", name="Start the chat").click()
        expect(page.locator("[data-message][data-role=assistant]")).to_have_count(number + 1)
        answer = page.locator("[data-message][data-role=assistant]").last
        expect(answer).to_have_attribute("data-state", "done", timeout=60_000)
        answer.get_by_role("button", name="Bad", exact=True).click()
        answer.get_by_text("Say why").click()
        answer.get_by_label("Wrong", exact=True).check()
        answer.get_by_role("button", name="Save", exact=True).click()
        expect(answer.locator(".why .tag")).to_have_text("Wrong")
        answer.get_by_role("button", name="Rewrite").click()
        answer.get_by_label("Answer as it should be").fill(better)
        answer.get_by_role("button", name="Keep as the better answer").click()
        expect(page.locator("[data-message][data-role=assistant]").last.get_by_text("Written by a person")).to_be_visible()


def review(page: Page) -> None:
    """All that waits is accepted."""
    page.get_by_role("link", name="Review", exact=True).click()
    page.get_by_role("button", name="Accept the ticked").click()
    expect(page.get_by_text("Nothing waits for review")).to_be_visible()


def make_dataset(page: Page, form: str) -> None:
    """From the review, with everything as the page proposes it; the version gets ready while it is looked at."""
    page.get_by_role("link", name=re.compile("^(Make a dataset|Datasets)")).last.click()
    page.get_by_label("Rows", exact=True).select_option(label=form)
    page.get_by_role("button", name="Make the dataset").click()
    expect(page.locator("[data-part=versions] tbody tr").first).to_contain_text("Ready", timeout=60_000)


def train(page: Page, words: str) -> None:
    """From a version to a launch that has ended well, on its page."""
    page.get_by_role("link", name=words).first.click()
    page.get_by_role("button", name="Make the pipeline").click()
    page.get_by_role("button", name="Launch the pipeline").click()
    expect(page.locator("[data-part=state]").first).to_have_text("Succeeded", timeout=TRAINS_MS)


def deploy_beside(page: Page, former: str) -> None:
    page.get_by_role("link", name="Deploy the checkpoint").click()
    expect(page.get_by_role("link", name=f"New revision of {former}")).to_be_visible()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.locator("h1 ~ [data-part=state]")).to_have_text("Ready", timeout=STARTS_MS)


def compare(page: Page, former: str) -> None:
    """Both answer one message; the new one is preferred, which the win rates say."""
    new = page.locator("h1").inner_text()
    page.get_by_role("link", name=f"Compare with {former}").click()
    page.get_by_label("Your first message").fill("25+36=")
    page.get_by_role("button", name="Start the chat").click()
    columns = page.locator(".columns [data-message]")
    expect(columns).to_have_count(2)
    for place in range(2):
        expect(columns.nth(place)).to_have_attribute("data-state", "done", timeout=60_000)
    columns.filter(has=page.locator(".column-head", has_text=new)).get_by_role("button", name="This is better").click()
    page.locator(".round-foot").get_by_role("link", name="win rates").click()
    row = page.locator("tbody tr")
    expect(row).to_contain_text(new)
    expect(row).to_contain_text(former)
    expect(row).to_contain_text(re.compile("% to "))


@pytest.mark.parametrize(
    "engine", ["builtin", pytest.param("sglang", marks=[pytest.mark.sglang, pytest.mark.skipif(bool(NO_SGLANG), reason=str(NO_SGLANG))])]
)
def test_a_revision_is_shifted_and_rolled_back_between_real_engines(world: World, engine: str) -> None:
    """Both answer the same, word for word, so that nobody who asks greedily can tell the shift."""
    page, name = world.page, f"shifted-{engine}"
    deployment = world.deploy(name)
    before = greedy(world, name)
    page.goto(f"/deployments/{deployment}/")
    page.get_by_role("link", name="New revision").click()
    page.wait_for_url("**/revise/")
    page.wait_for_load_state("load")  # before that nothing hears the choice
    if engine != "builtin":
        with page.expect_response("**/deployments/new/engine/**"):
            page.locator("[name=engine]").select_option(engine)
    page.locator("[name=plan-mode]").select_option("by_hand")
    page.get_by_role("button", name="Start the revision").click()
    expect(page.get_by_text("It is ready and waits for you")).to_be_visible(timeout=STARTS_MS)
    page.get_by_role("button", name="Give it 50 %").click()
    expect(page.get_by_text("It gets 50 % of the requests, revision 1 the others.")).to_be_visible()
    assert [greedy(world, name) for _ in range(4)] == [before] * 4
    healthy = page.locator(".stat", has_text="Healthy answers").locator("b")
    expect(healthy).to_have_text(re.compile(r"^[1-9]\d*$"), timeout=20_000)
    assert 0 < int(healthy.inner_text()) < 4 * len(SAID), "each of both has answered"
    page.get_by_role("button", name="Give it 100 %").click()
    expect(page.get_by_role("heading", name="Revision 2 takes over")).to_have_count(0)
    expect(page.locator("table", has_text="settings").locator("tr", has_text="Current")).to_contain_text(engine)
    assert greedy(world, name) == before
    streams(world, name)
    chat(page)
    page.goto(f"/deployments/{deployment}/")
    page.get_by_role("button", name="Go back to it").first.click()
    row = page.locator("table", has_text="settings").locator("tr", has_text="Current")
    expect(row.locator("td").first).to_have_text("1", timeout=STARTS_MS)
    assert greedy(world, name) == before
    world.platform.api.post(f"deployments/{deployment}/stop/")


def client(world: World, name: str) -> OpenAI:
    """Of the gateway, with a key of its own."""
    api = world.platform.api
    key = api.post("api-keys/", name=name, project=world.project, scopes=["inference"])["key"]
    return OpenAI(base_url=f"{api.base_url}/v1", api_key=key, max_retries=0)


def greedy(world: World, model: str) -> list[tuple[str, str, int]]:
    """Thinking, answer and number of tokens for each question, through the gateway."""
    with client(world, f"greedy {model}") as found:
        answers: list[Any] = [
            found.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=24
            )
            for question in SAID
        ]
    said = [(one.choices[0].message, one.usage.completion_tokens) for one in answers]
    return [((getattr(m, "reasoning_content", None) or "").strip(), (m.content or "").strip(), num) for m, num in said]


def streams(world: World, model: str) -> None:
    """The gateway hands on each piece as it comes."""
    with client(world, f"stream {model}") as found:
        told = found.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "17+25="}], temperature=0, max_tokens=24, stream=True
        )
        pieces = [delta for event in told for choice in event.choices if (delta := choice.delta).content or delta.model_extra]
    assert len(pieces) > 3


def chat(page: Page) -> None:
    """The second answer comes whole over the socket that the page has open since the first."""
    pieces: list[str] = []

    def hear(frame: str | bytes) -> None:
        told = json.loads(frame)
        pieces.extend([told["text"]] if told["type"] == "delta" else [])

    page.on("websocket", lambda socket: socket.on("framereceived", hear) if "/ws/chat/" in socket.url else None)
    page.get_by_role("link", name="Chat", exact=True).first.click()
    page.get_by_label("Your first message").fill("41+17=")
    page.get_by_role("button", name="Start the chat").click()
    answers = page.locator("[data-message][data-role=assistant]")
    expect(answers).to_have_attribute("data-state", "done", timeout=60_000)
    pieces.clear()
    page.locator("[data-composer] textarea").fill("17+25=")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(answers).to_have_count(2)
    expect(answers.last).to_have_attribute("data-state", "done", timeout=60_000)
    said = answers.last.locator("template[data-source]").evaluate("(one) => one.content.textContent")
    shown = (answers.last.locator("[data-reasoning]").text_content() or "") + said
    assert pieces and "".join("".join(pieces).split()) == "".join(shown.split())
