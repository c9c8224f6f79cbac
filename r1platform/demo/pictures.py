"""Photographs every kind of page of a running platform with headless Chromium: in the light, in the dark, at phone width.

A picture is WebP of at most MAX_BYTES: it is kept in the repository, and read for its look and not for its pixels.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from PIL import Image

from r1platform.client import Client, PlatformError
from r1platform.demo.pages import addresses

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

VIEWS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 860}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 860}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "has_touch": True},
}
"""How each page is looked at."""
ENDED = {"done", "failed", "interrupted", "stopped"}
ON_THEIR_WAY = {"pending", "starting", "degraded"}
BACK_SECONDS = 180
LOAD = {"concurrency": [1, 2, 4, 8], "num_requests": 24, "prompt_tokens": 32, "answer_tokens": 32}
"""What a benchmark asks when there is none to photograph: some seconds of the deployment."""
MAX_HEIGHTS = {"light": 1280, "dark": 1280, "phone": 1700}
MAX_BYTES = 60_000
QUALITIES = (80, 65, 50, 35, 20)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-prefers-reduced-motion"]
SETTLED = """() => {
  const seen = (one) => one.offsetParent && one.getBoundingClientRect().top < innerHeight;
  const said = (one) => [...one.parentElement.querySelectorAll("[data-note]")].some((note) => seen(note) && note.textContent);
  return document.readyState === "complete" && !document.querySelector(".swagger-ui .loading-container")
    && ![...document.querySelectorAll("[data-note]")].some((one) => seen(one) && one.textContent.startsWith("Loading"))
    && ![...document.querySelectorAll("[data-plot]")].some((one) => seen(one) && !one.querySelector("svg") && !said(one));
}"""
"""Whether the page shows what it has: nothing that is in view is loading, and each plot is drawn or says why it is not."""
NAMELESS = """(home) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(home, "R1_HOME");
}"""
"""Calls the directory of this machine's state by its variable: a picture is of the platform, and of no machine."""


def is_something_deployed(api: Client) -> bool:
    """Whether a deployment is ready; waits a while for those that a platform which has just started brings back."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        states = {one["state"] for one in api.pages("deployments/")}
        if "ready" in states or not states & ON_THEIR_WAY or time.monotonic() > deadline:
            return "ready" in states
        time.sleep(0.5)


def ids_of(api: Client) -> dict[str, int]:
    """The rows of the newest ready deployment of a launch's checkpoint, with a chat with it. Raises PlatformError without one."""
    deployment = next((one for one in api.pages("deployments/") if one["state"] == "ready"), None)
    if deployment is None:
        raise PlatformError("Nothing is deployed and ready on this platform.")
    launch = next((one for one in api.pages("launches/") if one["project"] == deployment["project"]), None)
    if launch is None:
        raise PlatformError(f"The project of the deployment {deployment['name']} has no launch.")
    pipeline = api.get(f"pipelines/{launch['pipeline']}/")
    version = api.get(f"dataset-versions/{pipeline['phases'][0]['dataset_version']}/")
    run = next((one for one in launch["runs"] if one["phase"] == "reinforcement"), launch["runs"][0])
    phase = next(one for one in pipeline["phases"] if one["phase"] == run["phase"])
    return {
        "launch": launch["id"], "pipeline": pipeline["id"], "phase": phase["id"], "run": run["id"], "dataset": version["dataset"],
        "number": version["number"], "deployment": deployment["id"],
        "conversation": _conversation(api, launch["project"], deployment["id"]), "load": _load(api, deployment),
    }  # fmt: skip


def _load(api: Client, deployment: dict[str, Any]) -> int:
    """A benchmark of the deployment that is over; made when there is none."""
    found = next(iter(api.pages("deployment-benchmarks/", deployment=deployment["id"], state="succeeded")), None)
    if found is not None:
        return int(found["id"])
    made = api.post("deployment-benchmarks/", revision=deployment["revision"]["id"], plan=LOAD)
    path = f"deployment-benchmarks/{made['id']}/"
    api.wait(path, lambda told: told["finished_at"] is not None, seconds=180, what="The benchmark of the deployment")
    return int(made["id"])


def _conversation(api: Client, project: int, deployment: int) -> int:
    """A chat with the deployment that has an answer; made when there is none."""
    found = next(iter(api.pages("conversations/", deployment=deployment)), None)
    if found is not None:
        return int(found["id"])
    made = api.post("conversations/", project=project, deployment=deployment, title="Adding two numbers")
    for question in ("4853+1279=", "Anna has 27 pens. She buys 3 packs of 12 pens. How many pens does she have?"):
        api.post(f"conversations/{made['id']}/messages/", content=question)
        api.wait(
            f"conversations/{made['id']}/messages/", lambda told: told[-1]["state"] in ENDED,
            seconds=60, what="An answer",
        )  # fmt: skip
    return int(made["id"])


@contextmanager
def browser_at(program: str) -> Iterator[Browser]:
    """Headless Chromium. Raises PlatformError where Playwright is not installed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise PlatformError("Pictures need Playwright: .venv/bin/pip install -r requirements-dev.txt") from error
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


def take(browser: Browser, base_url: str, sign_in_url: str, ids: dict[str, int], out: Path, names: list[str]) -> Iterator[Path]:
    """Writes `out/VIEW/NAME.webp` of each page in each view and tells of each."""
    signed_in = _sign_in(browser, sign_in_url, f"{base_url}/launches/{ids['launch']}/")
    for view, options in VIEWS.items():
        context = browser.new_context(storage_state=signed_in, reduced_motion="reduce", **options)
        for name, path in addresses(ids).items():
            if not names or name in names:
                yield _photograph(context, f"{base_url}{path}", out / view / f"{name}.webp", MAX_HEIGHTS[view])
        context.close()


def _sign_in(browser: Browser, url: str, then: str) -> Any:
    """The cookies of a session that has been on the page `then`, whose project it shows from there on."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name="Sign in").click()
    page.goto(then)
    state = context.storage_state()
    context.close()
    return state


def _photograph(context: BrowserContext, url: str, file: Path, max_height: int) -> Path:
    page = context.new_page()
    answer = page.goto(url, timeout=60_000)
    if answer is None or not answer.ok:
        raise PlatformError(f"{url} was answered {answer.status if answer else 'with nothing'}.")
    _settle(page)
    size = page.viewport_size or {"width": 1280, "height": 860}
    height = min(max(int(page.evaluate("document.documentElement.scrollHeight")), size["height"]), max_height)
    page.set_viewport_size({"width": size["width"], "height": height})
    _settle(page)
    page.evaluate(NAMELESS, str(settings.R1_HOME))
    write(page.screenshot(animations="disabled", caret="hide"), file)
    page.close()
    return file


def _settle(page: Page) -> None:
    page.wait_for_function(SETTLED, timeout=60_000)
    page.wait_for_timeout(400)  # plots are drawn in the frames after their numbers have come


def write(png: bytes, file: Path) -> None:
    """The picture as WebP, in the best quality that is small enough. Raises PlatformError when none is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in QUALITIES:
        made = io.BytesIO()
        image.save(made, "WEBP", quality=quality, method=6)
        if made.tell() <= MAX_BYTES:
            file.write_bytes(made.getvalue())
            return
    raise PlatformError(f"{file.name} is {made.tell():,} bytes in the lowest quality, above {MAX_BYTES:,}.")
