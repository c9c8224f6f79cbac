"""What holds for every engine: a command with everything but the key, readiness by a real token, metrics in the common names."""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from model_core.commands import serve as serve_word
from model_core.errors import ConfigError
from model_core.serving.backend import FakeBackend
from model_core.serving.engines import ENGINES
from model_core.serving.engines.sglang import parse_metrics
from model_core.serving.protocol import GIVES_UP, METRICS, Command, first_token, given_up
from model_core.serving.server import app
from tests.model_core.serving.engine_commands import KEY, NAMES, command_of, option, served_name_of

OURS = ["builtin", "fake"]
PROMETHEUS = """
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="tiny"} 3.0
"""


def served_args(command: Command) -> argparse.Namespace:
    """What `python -m model_core serve` understands of the command."""
    assert command.argv[:4] == [sys.executable, "-m", "model_core", "serve"]
    parser = argparse.ArgumentParser()
    serve_word.add_arguments(parser)
    return parser.parse_args(command.argv[4:])


def test_the_registry_finds_each_file() -> None:
    assert set(NAMES) <= set(ENGINES.names()) and set(OURS) < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_says_what_it_is(name: str) -> None:
    engine = ENGINES.get(name)
    assert engine.title and engine.__doc__ and engine.stop_grace_seconds > 0
    assert engine.Config.parse(engine.Config().resolved()) == engine.Config()
    assert all(field.description for field in engine.Config.model_fields.values())
    with pytest.raises(ConfigError, match="there is no such setting"):
        engine.Config.parse({"no_such_setting": 1})


@pytest.mark.parametrize("name", NAMES)
@given(key=st.text("abc019-_", min_size=8, max_size=40))
@settings(deadline=None)
def test_the_key_is_in_the_environment_and_in_no_list_of_processes(name: str, key: str) -> None:
    with_key, without = command_of(name, key=key), command_of(name, key="")
    assert with_key.argv == without.argv and with_key.env["R1_ENGINE_KEY"] == key and without.env["R1_ENGINE_KEY"] == ""
    assert {k: v for k, v in with_key.env.items() if k != "R1_ENGINE_KEY"} == {
        k: v for k, v in without.env.items() if k != "R1_ENGINE_KEY"}


@pytest.mark.parametrize("name", NAMES)
def test_it_listens_where_it_is_told_and_else_on_the_loopback_address(name: str) -> None:
    assert option(command_of(name), "--host") == "127.0.0.1"
    command = command_of(name, host="10.0.0.7")
    assert (option(command, "--host"), option(command, "--port")) == ("10.0.0.7", "8123")
    assert len({word for word in command.argv if word.startswith("--")}) == sum(word.startswith("--") for word in command.argv)


def test_settings_of_sglang_become_its_arguments_and_what_is_not_set_is_left_to_it() -> None:
    left = {"--ep-size", "--dp-size", "--mem-fraction-static", "--quantization", "--kv-cache-dtype", "--speculative-algorithm"}
    assert not left & set(command_of("sglang").argv)
    command = command_of(
        "sglang", tensor_parallel_size=4, expert_parallel_size=2, data_parallel_size=2, memory_fraction=0.8, quantization="fp8",
        cache_dtype="fp8_e5m2", speculative_tokens=3, reasoning_parser="qwen3", dtype="bfloat16", context_length=512,
    )  # fmt: skip
    wanted = {
        "--tp-size": "4", "--ep-size": "2", "--dp-size": "2", "--mem-fraction-static": "0.8", "--quantization": "fp8",
        "--kv-cache-dtype": "fp8_e5m2", "--speculative-algorithm": "EAGLE", "--speculative-num-steps": "3",
        "--speculative-eagle-topk": "1", "--speculative-num-draft-tokens": "4", "--reasoning-parser": "qwen3", "--dtype": "bfloat16",
        "--context-length": "512",
    }  # fmt: skip
    assert {name: option(command, name) for name in wanted} == wanted


@pytest.mark.parametrize("name", OURS)
def test_our_own_command_is_one_that_serve_understands(name: str) -> None:
    config: dict[str, Any] = {"max_running_requests": 3, "num_threads": 2} if name == "builtin" else {"pause": 0.5}
    args = served_args(command_of(name, served_name="my_model-1", host="::1", **config))
    assert (args.host, args.port, args.served_name) == ("::1", 8123, "my_model-1")
    assert args.model_dir == ("/models/one" if name == "builtin" else "fake")
    assert config.items() <= vars(args).items()
    root = Path(command_of(name).env["PYTHONPATH"])
    assert (root / "model_core" / "__main__.py").is_file(), "found from wherever it is started"


@pytest.mark.parametrize("served_name", ["-x", "--port", "-", "a b"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_like_an_option_is_a_name(name: str, served_name: str) -> None:
    command = command_of(name, served_name=served_name)
    assert served_name_of(command) == served_name
    assert name not in OURS or served_args(command).served_name == served_name


def test_threads_of_the_built_in_engine_are_those_of_its_setting() -> None:
    assert [command_of("builtin", num_threads=number).env["OMP_NUM_THREADS"] for number in (1, 5)] == ["1", "5"]


@pytest.mark.parametrize(("name", "values"), [
    ("builtin", {"max_running_requests": 0}), ("builtin", {"max_running_requests": 1025}), ("builtin", {"num_threads": 0}),
    ("builtin", {"num_threads": "2"}), ("fake", {"pause": -0.1}), ("fake", {"pause": 11}), ("sglang", {"device": "tpu"}),
    ("sglang", {"dtype": "int8"}), ("sglang", {"max_total_tokens": 63}), ("sglang", {"tensor_parallel_size": 0}),
    ("sglang", {"expert_parallel_size": 2}), ("sglang", {"memory_fraction": 1.0}), ("sglang", {"quantization": "int3"}),
    ("sglang", {"context_length": 0}), ("sglang", {"max_running_requests": True}),
])  # fmt: skip
def test_settings_out_of_range_are_refused_at_their_field(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ENGINES.get(name).Config.parse(values)
    assert [caught.value.field] == list(values)


class Loaded(FakeBackend):
    """An echo that can be told to be in another phase, and to have nothing to say about itself."""

    def metrics(self) -> dict[str, Any]:
        return {**super().metrics(), "kv_use": 0.5}


@pytest.fixture(scope="module")
def backend() -> FakeBackend:
    return Loaded()


@pytest.fixture(scope="module")
def url(backend: FakeBackend) -> Iterator[str]:
    """Our own server; below /prometheus it has the page of SGLang's numbers, below /broken one that is none."""
    served = app(backend, served_name="tiny", api_key=KEY, watch=lambda _backend: None)

    async def prometheus(_request: Request) -> PlainTextResponse:
        return PlainTextResponse(PROMETHEUS)

    async def broken(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("sglang:num_running_reqs{ 3", status_code=200)

    for path, page in (("prometheus", prometheus), ("broken", broken)):
        served.routes.extend([Route(f"/{path}/metrics", page), Route(f"/{path}/metrics/", page)])
    server = uvicorn.Server(uvicorn.Config(served, log_level="critical", lifespan="off"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def phase(backend: FakeBackend) -> Iterator[Any]:
    """Sets the backend's phase for the time of the test."""

    def put(phase: str, detail: str) -> None:
        backend.phase, backend.detail = phase, detail

    yield put
    put("ready", "")


@pytest.fixture(scope="module")
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_that_is_not_up_yet_is_waited_for(name: str, nowhere: str) -> None:
    engine = ENGINES.get(name)()
    found = engine.is_ready(nowhere, KEY, "tiny")
    assert found.phase in {"starting", "loading"} and found.detail.endswith(".")
    assert engine.read_metrics(nowhere) == {}


@pytest.mark.parametrize("name", NAMES)
def test_ready_is_who_has_said_a_token(name: str, url: str) -> None:
    engine = ENGINES.get(name)()
    assert engine.is_ready(url, KEY, "tiny").phase == "ready"
    refused = engine.is_ready(url, KEY, "another-name")
    assert refused.phase == "warming" and "404" in refused.detail and "another-name" in refused.detail
    assert engine.is_ready(url, "wrong", "tiny").phase in {"warming", "loading"}, "a key that does not fit is no readiness"


@pytest.mark.parametrize("name", OURS)
def test_our_engine_says_itself_what_it_is_doing(name: str, url: str, phase: Any) -> None:
    phase("loading", "The model is loaded.")
    loading = ENGINES.get(name)().is_ready(url, KEY, "tiny")
    assert (loading.phase, loading.detail) == ("loading", "The model is loaded.")
    phase("failed", "The checkpoint is damaged.")
    failed = ENGINES.get(name)().is_ready(url, KEY, "tiny")
    assert (failed.phase, failed.detail) == ("failed", "The checkpoint is damaged.")


def test_a_page_that_is_not_ours_is_no_word_of_ours(url: str) -> None:
    """Another server may stand at that address."""
    found = ENGINES.get("builtin")().is_ready(f"{url}/elsewhere", KEY, "tiny")
    assert found.phase == "loading" and "404" in found.detail


def test_the_first_token_of_an_engine_that_hangs_is_not_waited_for_for_ever() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        found = first_token(f"http://127.0.0.1:{deaf.getsockname()[1]}", KEY, "tiny", seconds=0.05)
    assert found.phase == "warming" and "Timeout" in found.detail


def test_a_refusal_of_the_first_token_is_repeated(url: str, phase: Any) -> None:
    assert "401" in first_token(url, "wrong", "tiny").detail and first_token(url, KEY, "tiny").phase == "ready"
    phase("loading", "x" * 1000)
    detail = first_token(url, KEY, "tiny").detail
    assert "503" in detail and len(detail) < 300, "no page of errors on the screen"


def test_metrics_have_common_names_only(url: str) -> None:
    for name in OURS:
        found = ENGINES.get(name)().read_metrics(url)
        assert found == {"running": 0, "queued": 0, "kv_use": 0.5} and found.keys() <= METRICS.keys()
    sglang = ENGINES.get("sglang")()
    assert sglang.read_metrics(f"{url}/prometheus") == parse_metrics(PROMETHEUS)
    assert parse_metrics(PROMETHEUS).keys() <= METRICS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_is_no_metrics_has_none(name: str, url: str) -> None:
    assert ENGINES.get(name)().read_metrics(f"{url}/broken") == {}


@given(st.lists(st.sampled_from(["loading", f"{GIVES_UP}first.", f"{GIVES_UP}second.", f"12:00 {GIVES_UP}quoted", ""]), max_size=6))
@settings(deadline=None)
def test_the_last_line_with_which_an_engine_gives_up_counts(lines: list[str]) -> None:
    mine = [line.removeprefix(GIVES_UP) for line in lines if line.startswith(GIVES_UP)]
    assert given_up("\n".join(lines)) == (mine[-1] if mine else "")
