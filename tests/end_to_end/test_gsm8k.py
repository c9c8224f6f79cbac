"""Real text goes the way that sums go: GSM8K from a file on disk to a chat, through the pages, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.browsing import browsing, sign_in
from tests.end_to_end.running import Platform, running

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
NUM_ROWS = 7473
STEPS = 50
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not GSM8K.exists(), reason="the real GSM8K is not beside the project"),
]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("gsm8k")) as found:
        yield found


@pytest.fixture(scope="module")
def page(platform: Platform) -> Iterator[Page]:
    with browsing(platform) as opened:
        yield opened


@pytest.mark.slow
def test_gsm8k_from_the_file_to_a_chat(page: Page, platform: Platform) -> None:
    sign_in(page, platform, "School maths")
    prepare_version(page)
    run = start_run(page)
    watch(page, run)
    steps_and_losses(platform, run)
    deploy_and_chat(page, run)


def prepare_version(page: Page) -> None:
    """Uploads the file, keeps the mapping that the page guesses, and waits on the version's own page."""
    page.goto("/datasets/new/")
    page.get_by_label("File").set_input_files(str(GSM8K))
    page.get_by_role("button", name="Upload and look inside").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("question")
    expect(page.get_by_label("Completion", exact=True)).to_have_value("answer")
    expect(page.get_by_label("Answer pattern", exact=True)).to_have_value(r"####\s*(.+)$")
    page.get_by_role("button", name="Prepare the version").click()
    expect(page.locator("[data-part=state]")).to_have_text(re.compile("Ready"), timeout=60_000)
    text = page.locator("main").inner_text().replace("\u202f", "").replace("\u2009", "").replace(" ", "")
    counts = [int(found) for found in re.findall(r"(\d{3,5})(?=train|heldout|rows|\n)", text)]
    assert any(a + b == NUM_ROWS for a in counts for b in counts), text[:2000]


def start_run(page: Page) -> int:
    """The small preset, a byte-level BPE trained on the version, two processes with the experts split over them."""
    page.goto("/runs/new/?phase=cold_start")
    page.get_by_label("Name", exact=True).fill("School maths, small")
    page.get_by_label("Dataset version").select_option(index=1)
    for group in ("Model", "Tokenizer", "Held out", "Parallel"):
        page.locator("details > summary", has_text=re.compile(f"^{group}$")).click()
    page.get_by_label("Preset").select_option("small")
    values = {
        "tokenizer.kind": "byte_bpe", "tokenizer.vocab_size": "1024", "phase_config.steps": str(STEPS),
        "phase_config.batch_size": "2", "held_out.num_problems": "8", "held_out.max_new_tokens": "48",
        "parallel.num_processes": "2", "parallel.expert": "2",
    }  # fmt: skip
    for name, value in values.items():
        field = page.locator(f"[name='config-{name}']")
        field.select_option(value) if name == "tokenizer.kind" else field.fill(value)
    page.get_by_role("button", name="Queue the run").click()
    page.wait_for_url(re.compile(r"/runs/\d+/$"))
    return int(page.url.rstrip("/").rsplit("/", 1)[1])


def watch(page: Page, run: int) -> None:
    """Points arrive without a reload while it trains, and the page sees it end."""
    loss = "document.querySelector(\"[data-name='loss'] [data-plot]\")?.data?.at(-1)?.x?.length ?? 0"
    page.evaluate("window.untouched = true")
    page.locator("[data-name='loss']").scroll_into_view_if_needed(timeout=120_000)  # a chart is drawn where somebody looks
    page.wait_for_function(f"() => {loss} >= 3", timeout=180_000)
    seen = int(page.evaluate(loss))
    page.wait_for_function(f"() => {loss} > {seen}", timeout=60_000)
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile("Succeeded"), timeout=240_000)
    assert page.evaluate("window.untouched"), "the page was never loaded again"


def steps_and_losses(platform: Platform, run: int) -> None:
    """Every step has its loss, the loss falls, the model has the preset's shape, and the work was split in two."""
    found = platform.api.get(f"runs/{run}/")
    config = found["config"]
    assert config["model"]["hidden_size"] == 256 and config["model"]["num_hidden_layers"] == 6
    assert config["parallel"]["num_processes"] == 2 and found["result"]["steps"] == STEPS
    (loss,) = platform.api.get(f"runs/{run}/metrics/", names="loss")["series"]
    assert loss["x"] == list(range(1, STEPS + 1))
    first, last = loss["last"][:3], loss["last"][-3:]
    assert max(last) < min(first) - 1, (first, last)


def deploy_and_chat(page: Page, run: int) -> None:
    """The checkpoint of the page is deployed, answers a question, and both are there after a refresh."""
    page.goto(f"/runs/{run}/checkpoints/")
    page.get_by_role("link", name="Deploy", exact=True).first.click()  # the newest stands first
    page.get_by_role("button", name=re.compile("^Deploy")).click()
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile("Ready"), timeout=90_000)
    page.get_by_role("link", name=re.compile("Chat|playground", re.IGNORECASE)).first.click()
    page.get_by_label("Your first message").fill("Tom has 3 apples and buys 4 more. How many apples has Tom?")
    page.get_by_role("button", name="Start the chat").click()
    turn = page.locator("[data-message][data-role=assistant][data-state=done]")
    expect(turn).to_be_visible(timeout=60_000)
    parts = [turn.locator("[data-reasoning]"), turn.locator("[data-content]")]  # the thinking is folded after a refresh
    said = [(part.text_content() or "").split() for part in parts]
    page.reload()
    assert said[0] + said[1] and [(part.text_content() or "").split() for part in parts] == said
