"""The order of steps of the demo. Each step is one or two calls of the public API; nothing is reached past it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from openai import OpenAI, OpenAIError
from rich.console import Console

from r1platform.client import Client, PlatformError
from r1platform.demo import report
from r1platform.demo.follow import RUN_ENDS, follow_launch

NUM_QUESTIONS = 20
DATASET_ENDS = {"ready", "failed", "stopped"}
DEPLOYMENT_ENDS = {"ready", "failed", "stopped"}


@dataclass(frozen=True)
class Wishes:
    """What the command line asked for."""

    seed: int = 0
    engine: str = "builtin"
    control: bool = False
    recipe: str = "article"
    """The pipeline template."""


class Interrupted(Exception):
    """Ctrl-C while a launch was followed; `page` is where it is found again."""

    def __init__(self, page: str) -> None:
        super().__init__(page)
        self.page = page


def tell(api: Client, wishes: Wishes, console: Console) -> dict[str, Any]:
    """Runs the whole main job and returns what `--json` writes. Raises PlatformError with the platform's sentence."""
    started = time.monotonic()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    project = api.post("projects/", name=f"Demo {stamp}")
    version = prepare_dataset(api, project["id"], wishes, console)
    pipeline = api.post(
        "pipelines/", project=project["id"], name="Tiny R1", template=wishes.recipe, dataset_version=version["id"],
        seed=wishes.seed,
    )  # fmt: skip
    launch = api.post(f"pipelines/{pipeline['id']}/launch/")
    page = f"/launches/{launch['id']}/"
    console.print(f"Launched: {api.base_url}{page}")
    try:
        launch = follow_launch(api, launch["id"], console, seconds=1800)
    except KeyboardInterrupt:
        raise Interrupted(page) from None
    runs = [api.get(f"runs/{run['id']}/") for run in launch["runs"]]
    phases = [report.phase_row(run) for run in runs]
    report.show_phases(console, phases)
    if launch["state"] != "succeeded":
        why = str(launch["state_reason"]).rstrip(".")
        raise PlatformError(f"The launch is {launch['state']}: {why}. Look at {api.base_url}{page}")
    result = {"phases": phases, "versions": report.versions(), "seed": wishes.seed, "recipe": wishes.recipe}
    if wishes.control:
        result["control"] = run_control(api, runs, console)
    deployment = deploy(api, project["id"], served(runs), wishes.engine, console)
    chat = ask(api, project["id"], deployment["name"], questions(api, version), console)
    return {
        "seconds": time.monotonic() - started,
        **result,
        "deployment": {"engine": wishes.engine, "model": deployment["name"]},
        "chat": chat,
    }


def prepare_dataset(api: Client, project: int, wishes: Wishes, console: Console) -> Any:
    """Generates the dataset of sums with its held-out problems and waits for the version."""
    template = api.get(f"pipeline-templates/{wishes.recipe}/")
    dataset = api.post("datasets/", project=project, name="Sums, two styles of reasoning", kind="self")
    config = {**template["prepare"], "seed": wishes.seed}
    version = api.post(f"datasets/{dataset['id']}/versions/", config=config)
    version = api.wait(
        f"dataset-versions/{version['id']}/", lambda v: v["state"] in DATASET_ENDS, seconds=180, what="Preparing the dataset"
    )
    if version["state"] != "ready":
        raise PlatformError(f"The dataset ended as {version['state']}: {version['state_reason']}")
    console.print(f"Dataset: {version['num_rows']} demonstrations, {version['num_held_out']} held-out problems.")
    return version


def run_control(api: Client, runs: list[dict[str, Any]], console: Console) -> dict[str, Any]:
    """Spends what reinforcement learning spent on more supervised steps from the same cold start."""
    cold, rl = runs[0], runs[1]
    spent = rl["result"]["device_seconds"]
    config = cold["config"]
    per_step = cold["result"]["device_seconds"] / max(cold["result"]["steps"], 1)
    config["phase_config"]["steps"] = max(1, round(spent / per_step))
    run = api.post(
        "runs/",
        project=cold["project"],
        name="Control: more supervised steps",
        phase="cold_start",
        config=config,
        dataset_version=cold["dataset_version"],
        starts_from=final_checkpoint(api, cold)["id"],
        budget_device_seconds=spent,
    )
    run = api.wait(f"runs/{run['id']}/", lambda r: r["state"] in RUN_ENDS, seconds=1800, what="The control")
    row = report.phase_row(run)
    console.print(
        f"The same {spent:.0f} device-seconds from the same cold start: "
        f"reinforcement {rl['result']['accuracy']:.1%}, more supervised steps {row['accuracy']:.1%}."
    )
    return row


def served(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run whose model is deployed: the last, but for a distilled one, which is of a class that only SGLang serves."""
    return next(run for run in reversed(runs) if run["phase"] != "distillation")


def deploy(api: Client, project: int, run: dict[str, Any], engine: str, console: Console) -> Any:
    """Deploys the run's final checkpoint and waits until it has really answered."""
    checkpoint = final_checkpoint(api, run)
    deployment = api.post(
        "deployments/", project=project, name=f"tiny-r1-{run['id']}", checkpoint=checkpoint["id"], engine=engine
    )
    deployment = api.wait(
        f"deployments/{deployment['id']}/", lambda d: d["state"] in DEPLOYMENT_ENDS, seconds=300, what="Deploying"
    )
    if deployment["state"] != "ready":
        raise PlatformError(f"The deployment ended as {deployment['state']}: {deployment['state_reason']}")
    console.print(f"Deployed on {engine}: {api.base_url}/playground/?deployment={deployment['id']}")
    return deployment


def final_checkpoint(api: Client, run: dict[str, Any]) -> dict[str, Any]:
    """The newest checkpoint of a run that is still on disk."""
    found = [item for item in api.get(f"runs/{run['id']}/checkpoints/") if not item["removed_at"]]
    if not found:
        raise PlatformError(f"Run {run['id']} has no checkpoint.")
    return max(found, key=lambda item: item["step"])


def questions(api: Client, version: dict[str, Any]) -> list[dict[str, Any]]:
    """The first held-out problems."""
    rows: list[dict[str, Any]] = api.get(f"dataset-versions/{version['id']}/preview/", split="held_out")["rows"]
    return rows[:NUM_QUESTIONS]


def ask(api: Client, project: int, model: str, rows: list[dict[str, Any]], console: Console) -> list[dict[str, Any]]:
    """Asks each question through the OpenAI-compatible gateway, greedily, with a key of its own."""
    key = api.post("api-keys/", name=f"demo {model}", project=project, scopes=["read", "inference"])["key"]
    client = OpenAI(base_url=f"{api.base_url}/v1", api_key=key)
    chat = []
    for row in rows:
        try:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": row["prompt"]}], temperature=0, max_tokens=96
            )
        except OpenAIError as error:
            raise PlatformError(f"The deployment did not answer “{row['prompt']}”: {error}") from None
        said = (answer.choices[0].message.content or "").strip()
        chat.append({"prompt": row["prompt"], "answer": said, "expected": row["answer"], "correct": said == row["answer"]})
    report.show_chat(console, chat)
    return chat
