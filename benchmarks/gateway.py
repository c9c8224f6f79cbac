"""Chat streams through our gateway, LiteLLM's proxy and a bare pass-through, and from the engine directly, in turn.

The engine is a fake that sends a token each 5 ms and costs next to nothing. Ours checks the key, holds it to limits on requests,
tokens and money, and writes the usage down with its price; LiteLLM checks its master key only and writes nothing down. Each is
one process. *one*: one stream after another, time to the first token. *many*: 64 streams at once, tokens a second.

Goals: at most 5 ms added at the median of one; at 64 at least 4 times LiteLLM's tokens a second and 0.85 of the bare one's.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks._engine import PAUSE
from benchmarks._peers import ROOT, python_of, serving, versions_of
from benchmarks._platform import new_project, platform
from benchmarks._report import write
from model_core.serving.load import Asked, Connection, Level, Target, run_level, stream_body

ROUNDS, ONES, STREAMS = 3, 40, 64
ONE_TOKENS, MANY_TOKENS = 4, 300
KEY = "sk-bench"
GOAL_MS, TIMES_LITELLM, OF_BARE = 5.0, 4.0, 0.85
UVICORN = ("--no-access-log", "--log-level", "warning", "--lifespan", "off")


def main(*names: str) -> None:
    """Measures all, in turn, ROUNDS times, and writes the result; with names of targets only those, and writes nothing."""
    with platform() as home, ExitStack() as running:
        targets = start(home, running)
        wanted = {name: target for name, target in targets.items() if not names or name in names or name == "direct"}
        found: dict[str, dict[str, list[float]]] = {name: {"ttft_ms": [], "tokens_per_second": []} for name in wanted}
        for target in wanted.values():
            asyncio.run(many(target, 8, 20))
        for _ in range(ROUNDS):
            for name, target in wanted.items():
                found[name]["ttft_ms"] += asyncio.run(ones(target))
                found[name]["tokens_per_second"].append(asyncio.run(many(target, STREAMS, MANY_TOKENS)))
                print(name, {key: round(statistics.median(values), 2) for key, values in found[name].items()}, flush=True)
        if not names:
            report(found, num_booked=booked())


def report(found: dict[str, dict[str, list[float]]], *, num_booked: int) -> None:
    """Writes medians and ratios; the ratio is to LiteLLM at 64 streams."""
    assert num_booked == (ROUNDS * (ONES + STREAMS)) + 8, f"{num_booked} requests of ours are in the usage"
    detail: dict[str, Any] = {
        name: {key: round(statistics.median(values), 2) for key, values in of.items()} for name, of in found.items()
    }
    added = {name: round(of["ttft_ms"] - detail["direct"]["ttft_ms"], 2) for name, of in detail.items() if name != "direct"}
    rate = {name: of["tokens_per_second"] for name, of in detail.items()}
    ratio, of_bare = rate["ours"] / rate["litellm"], rate["ours"] / rate["bare"]
    write(
        "gateway", packages=("django", "uvicorn", "httpx", "starlette"), peers=versions_of("litellm"), ours=rate["ours"],
        peer=rate["litellm"], ratio=round(ratio, 2),
        unit="tokens/s of 64 streams with auth, limits and usage; goals 5 ms added at one stream, 4 times LiteLLM, 0.85 of bare",
        detail={
            **detail, "ttft_added_ms": added, "times_litellm": round(ratio, 2), "of_bare": round(of_bare, 3),
            "of_direct": {name: round(value / rate["direct"], 3) for name, value in rate.items()},
            "rounds": {name: [round(value) for value in of["tokens_per_second"]] for name, of in found.items()},
            "goals_met": {
                "ttft": added["ours"] <= GOAL_MS, "times_litellm": ratio >= TIMES_LITELLM, "of_bare": of_bare >= OF_BARE,
            },
        },
    )  # fmt: skip


def start(home: Path, running: ExitStack) -> dict[str, Target]:
    """The engine and the three before it; each answers when this returns."""
    from r1platform.demo.stack import free_port

    engine, ours, bare, litellm = (free_port() for _ in range(4))
    argv = [sys.executable, "-m", "benchmarks._engine", str(engine)]
    running.enter_context(serving(argv, f"http://127.0.0.1:{engine}/v1/models", cwd=ROOT))
    key = deployed(f"http://127.0.0.1:{engine}")
    uvicorn = [sys.executable, "-m", "uvicorn", *UVICORN]
    for port, app, more in (
        (ours, "r1platform.asgi:application", {"R1_HOME": str(home)}),
        (bare, "benchmarks._passthrough:app", {"BENCH_ENGINE": f"http://127.0.0.1:{engine}"}),
    ):
        argv = [*uvicorn, app, "--port", str(port)]
        running.enter_context(serving(argv, f"http://127.0.0.1:{port}/v1/models", cwd=ROOT, env={**os.environ, **more}))
    running.enter_context(peer(home, port=litellm, engine=engine))
    named = {"direct": (engine, KEY), "ours": (ours, key), "bare": (bare, KEY), "litellm": (litellm, KEY)}
    return {name: Target(f"http://127.0.0.1:{port}", secret) for name, (port, secret) in named.items()}


@contextmanager
def peer(home: Path, *, port: int, engine: int) -> Iterator[None]:
    """LiteLLM's proxy, with a key and without a database."""
    config = home / "litellm.yaml"
    model = {"model": "openai/sums", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": "x"}
    config.write_text(json.dumps({
        "model_list": [{"model_name": "sums", "litellm_params": model}], "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False},
    }))  # fmt: skip
    program = Path(python_of("litellm")).parent / "litellm"
    argv = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    env = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    env = {name: value for name, value in env.items() if name not in {"DATABASE_URL", "DJANGO_SETTINGS_MODULE"}}
    with serving(argv, f"http://127.0.0.1:{port}/health/liveliness", cwd=home, env=env):
        yield


def deployed(engine_url: str) -> str:
    """A deployment with a price whose replica is the engine; answers a key with every limit, each too high to be met."""
    from django.utils import timezone

    from benchmarks._platform import new_run
    from r1platform.keys import api_key_create
    from r1platform.models import Node
    from serving_app.models import Deployment, DeploymentRevision, Price, Replica
    from training_app.models import Checkpoint, RunAttempt

    project, user = new_project()
    run = new_run(project, user)
    attempt = RunAttempt.objects.create(run=run, number=1, node=Node.objects.create(name="bench"))
    checkpoint = Checkpoint.objects.create(run=run, attempt=attempt, step=1)
    deployment = Deployment.objects.create(project=project, name="sums", state="ready")
    Price.objects.create(deployment=deployment, input_dollars=Decimal("0.55"), output_dollars=Decimal("2.19"))
    revision = DeploymentRevision.objects.create(deployment=deployment, number=1, checkpoint=checkpoint, engine="builtin")
    Replica.objects.create(
        revision=revision, number=1, state="ready", base_url=engine_url, engine_key="x", ready_at=timezone.now(),
        heartbeat_at=timezone.now(),
    )  # fmt: skip
    limits = {"requests_per_minute": 6000, "concurrent_requests": 256, "tokens_per_minute": 10**8, "dollars_per_month": 10**4}
    return api_key_create(user=user, name="bench", scopes=("inference",), **limits)[1]


def booked() -> int:
    """Requests in the table of usage, once all are there."""
    from serving_app.models import UsageRecord

    ended = UsageRecord.objects.filter(status=200, completion_tokens__gt=0, cost_dollars__gt=0)
    deadline = time.monotonic() + 10
    while UsageRecord.objects.count() > ended.count() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    return ended.count()


async def ones(target: Target) -> list[float]:
    """Milliseconds to the first token of streams one after another, over one connection."""
    connection = Connection(target)
    found = [checked(await connection.ask(body(ONE_TOKENS)), ONE_TOKENS) for _ in range(ONES)]
    connection.close()
    return [seconds * 1000 for seconds in found]


async def many(target: Target, streams: int, tokens: int) -> float:
    """Tokens a second of streams that begin together, each over a connection of its own."""
    level, sent = Level(streams, streams), body(tokens)
    await run_level(level, [target], lambda _number: sent, seconds=600)
    for asked in level.asked:
        checked(asked, tokens)
    return streams * tokens / level.seconds


def body(tokens: int) -> bytes:
    """What is asked: no counts, as most callers ask."""
    return stream_body("sums", "What is 17 times 23?", max_tokens=tokens, stream_options=None)


def checked(asked: Asked, tokens: int) -> float:
    """The seconds to the first token that are not the engine's, of a stream that came whole."""
    assert asked.seconds is not None and asked.ttft_seconds is not None, asked.error
    assert asked.completion_tokens == tokens, f"{asked.completion_tokens} tokens of {tokens} came"
    return asked.ttft_seconds - PAUSE


if __name__ == "__main__":
    main(*sys.argv[1:])
