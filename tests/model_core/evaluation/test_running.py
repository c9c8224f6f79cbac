"""A benchmark from data to result: given texts, an endpoint with its failures, going on after a cut, and what is refused."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_core.__main__ import main
from model_core.errors import ConfigError, DataError
from model_core.evaluation import sources
from model_core.evaluation.running import evaluate
from model_core.evaluation.sources import Endpoint, Given

ROWS = [{"question": f"What is {number} + 1?", "answer": f"#### {number + 1}"} for number in range(6)]
Answer = Callable[[dict[str, Any], int], tuple[int, Any, dict[str, str]]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "test.jsonl", ROWS)


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def given(tmp_path: Path, *lines: tuple[int, str]) -> Path:
    return write(tmp_path / "completions.jsonl", [{"row": row, "completion": text} for row, text in lines])


class Server:
    """A real HTTP server that answers chat completions by a function of the body and of how often it was asked that."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[dict[str, Any]] = []
        times: Counter[str] = Counter()
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say(200, {"data": [{"id": "tiny"}]}, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    outer.asked.append(body)
                    key = json.dumps(body)
                    times[key] += 1
                self.say(*answer(body, times[key]))

            def say(self, status: int, value: Any, headers: dict[str, str]) -> None:
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def said(content: str, **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": "stop"}]}


def right(body: dict[str, Any], _times: int) -> tuple[int, Any, dict[str, str]]:
    number = int(body["messages"][0]["content"].split()[2])
    return 200, said(f"It is \\boxed{{{number + 1}}}."), {}


def test_given_texts_are_graded_by_row_and_the_rest_is_counted(data: Path, tmp_path: Path) -> None:
    texts = given(tmp_path, (0, "#### 1"), (2, "#### 9"), (2, "#### 3"), (2, "#### 3"), (5, "no idea"))
    out = tmp_path / "out.json"
    result = evaluate("gsm8k", data, Given(texts, num_rows=6), out=out)
    assert result == json.loads(out.read_text())
    assert result["num_problems"] == 3 and result["num_without_completion"] == 3 and result["num_samples"] == 5
    assert result["accuracy"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    two = result["problems"][1]
    assert (two["row"], two["expected"], two["correct"], two["answer"]) == (2, "3", True, "3") and two["accuracy"] == pytest.approx(2 / 3)
    assert result["majority"]["accuracy"] == pytest.approx(2 / 3) and result["no_answer"] == 1
    assert result["benchmark"] == "gsm8k" and {one["source"] for one in result["references"]} == {"“How DeepSeek-R1 Was Built”, as the article states"}


def test_the_command_writes_what_the_function_gives(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = given(tmp_path, (0, "#### 1"), (1, "#### 1"))
    out = tmp_path / "out.json"
    assert main(["evaluate", "--benchmark", "gsm8k", "--data", str(data), "--completions", str(texts), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["accuracy"] == 0.5 and "gsm8k: 50.0 % of 2" not in capsys.readouterr().err
    assert {"benchmark", "accuracy", "num_problems", "stderr", "problems"} <= set(json.loads(out.read_text()))


@pytest.mark.parametrize(("words", "field"), [
    ([], "benchmark"), (["one"], "benchmark"), (["--benchmark", "gsm8k"], "data"),
    (["--benchmark", "nothing", "--data", "DATA", "--json", "OUT", "--completions", "TEXTS"], "benchmark"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT"], "checkpoint"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT", "--completions", "TEXTS", "--endpoint", "http://x"], "completions"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT", "--completions", "/nowhere"], "completions"),
    (["--benchmark", "gsm8k", "--data", "/nowhere", "--json", "OUT", "--completions", "TEXTS"], "data"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT", "--completions", "TEXTS", "--limit", "0"], "limit"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT", "--completions", "TEXTS", "--temperature", "3"], "temperature"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT", "--completions", "TEXTS", "--prompt", "hm"], "prompt"),
    (["--benchmark", "gsm8k", "--data", "DATA", "--json", "OUT", "--endpoint", "http://127.0.0.1:9"], "endpoint"),
])
def test_what_cannot_be_is_a_sentence_at_its_option(
    words: list[str], field: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"DATA": str(data), "OUT": str(tmp_path / "out.json"), "TEXTS": str(given(tmp_path, (0, "#### 1")))}
    assert main(["evaluate", *(places.get(word, word) for word in words)]) == 2
    told = capsys.readouterr().err
    assert f"({field})" in told and told.count("\n") == 1 and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("line", "why"), [
    ('{"row": 6, "completion": "x"}', "there is no row 6"), ('{"row": -1, "completion": "x"}', "there is no row -1"),
    ('{"row": true, "completion": "x"}', "a line is"), ('{"row": 1}', "a line is"), ("nonsense", "not JSON"), ("[1]", "not a JSON object"), ('{"row": 0, "completion": "\\ud800"}', "not JSON"), ("", "no completion"),
])
def test_a_broken_file_of_completions_names_its_line(data: Path, tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=why):
        Given(path, num_rows=6)


@pytest.mark.parametrize(("row", "why"), [
    ({"question": "x"}, "Row 6: the field “answer” must be text"), ({"question": "x", "answer": "5"}, "must end with"), ({"question": None, "answer": "#### 5"}, "“question” must be text"),
])
def test_a_row_that_is_no_problem_refuses_the_file(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    data = write(tmp_path / "test.jsonl", [*ROWS, row])
    with pytest.raises(DataError, match=why):
        evaluate("gsm8k", data, Given(given(tmp_path, (0, "1")), num_rows=6), out=tmp_path / "out.json")


def test_an_endpoint_is_asked_as_the_benchmark_pins_and_its_thinking_is_no_answer(data: Path, tmp_path: Path, serve: Callable[[Answer], Server]) -> None:
    def thinking(body: dict[str, Any], times: int) -> tuple[int, Any, dict[str, str]]:
        status, value, headers = right(body, times)
        return status, said(value["choices"][0]["message"]["content"], reasoning_content="\\boxed{77}"), headers

    server = serve(thinking)
    result = evaluate("gsm8k", data, Endpoint(server.url), out=tmp_path / "out.json", overrides={"num_samples": 2})
    assert result["accuracy"] == 1.0 and result["num_samples"] == 12 and result["settings"]["model"] == "tiny"
    assert {(body["temperature"], body["top_p"], body["model"]) for body in server.asked} == {(0.6, 0.95, "tiny")}
    assert len({body["seed"] for body in server.asked}) == 12
    assert all(body["messages"][0]["content"].endswith("put your final answer within \\boxed{}.") for body in server.asked)


def test_what_is_busy_is_asked_again_and_what_fails_for_good_is_unscored(
    data: Path, tmp_path: Path, serve: Callable[[Answer], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(sources.time, "sleep", waits.append)

    def moody(body: dict[str, Any], times: int) -> tuple[int, Any, dict[str, str]]:
        number = int(body["messages"][0]["content"].split()[2])
        if number == 1 and times == 1:
            return 429, {"error": {"message": "slow down"}}, {"retry-after": "7"}
        if number == 2:
            return 503, b"gone", {}
        return (200, b"{}", {}) if number == 3 else right(body, times)

    result = evaluate("gsm8k", data, Endpoint(serve(moody).url), out=tmp_path / "out.json", overrides={"num_samples": 1})
    assert result["accuracy"] == 1.0 and result["unscored"] == 2 and result["num_problems"] == 6
    reasons = " ".join(result["unscored_reasons"])
    assert "503: gone" in reasons and "no chat completion" in reasons
    assert sorted(waits) == [0.5, 1.0, 2.0, 4.0, 7.0]
    mended = evaluate("gsm8k", data, Endpoint(serve(right).url), out=tmp_path / "else.json", overrides={"num_samples": 1})
    assert mended["unscored"] == 0


def test_what_the_endpoint_cannot_take_is_unscored_and_asked_again_by_the_next_call(
    data: Path, tmp_path: Path, serve: Callable[[Answer], Server]
) -> None:
    """A prompt that is too long for the server harms no other problem, and waits are those that the server names by date."""
    odd = {2}

    def picky(body: dict[str, Any], times: int) -> tuple[int, Any, dict[str, str]]:
        return (400, {"error": "too long"}, {}) if int(body["messages"][0]["content"].split()[2]) in odd else right(body, times)

    server, out, one = serve(picky), tmp_path / "out.json", {"num_samples": 1}
    first = evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides=one)
    assert first["unscored"] == 1 and first["accuracy"] == 1.0 and "400: too long" in next(iter(first["unscored_reasons"]))
    odd.clear()
    second = evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides=one)
    assert len(server.asked) == 7 and second["unscored"] == 0 and second["num_problems"] == 6


@pytest.mark.parametrize(("header", "low", "high"), [
    ("7", 7, 7), ("2.5", 2.5, 2.5), ("999", 30, 30), ("soon", 1, 1), ("", 1, 1),
    (25, 1, 25), (-1000, 0, 0),
])  # fmt: skip
def test_the_server_says_when_to_come_again(header: str | int, low: float, high: float) -> None:
    """In seconds, or by a date, which stands here as seconds from now."""
    if isinstance(header, int):
        header = email.utils.formatdate(time.time() + header)
    assert low <= sources._retry_after(httpx.Response(429, headers={"retry-after": header}), 1.0) <= high


def test_an_endpoint_that_answers_nobody_ends_it_early(data: Path, tmp_path: Path, serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda _body, _times: (422, {"error": "no"}, {}))
    with pytest.raises(ConfigError, match=f"answered none of {sources.FAILURES_BEFORE_ANY_ANSWER} requests"):
        evaluate("gsm8k", data, Endpoint(server.url, num_requests=1), out=tmp_path / "out.json", overrides={"num_samples": 64})
    assert len(server.asked) < 64


def test_given_texts_are_not_kept_and_other_ones_may_follow(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.json"
    accuracies = [evaluate("gsm8k", data, Given(given(tmp_path, (0, text)), num_rows=6), out=out)["accuracy"] for text in ("1", "2")]
    assert accuracies == [1.0, 0.0] and [path.name for path in out.parent.iterdir()] == ["out.json"]


@pytest.mark.parametrize(("value", "field"), [("3", "fields"), ("{", "fields"), ('{"magic": 1}', "magic")])
def test_fields_of_your_own_are_named_in_json(value: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "own.jsonl", [{"problem": "?", "solution": "x+1"}])
    words = ["evaluate", "--benchmark", "custom", "--data", str(data), "--completions", str(given(tmp_path, (0, "1+x"))),
             "--json", str(tmp_path / "out.json")]  # fmt: skip
    assert main([*words, "--fields", '{"question_field": "problem", "answer_field": "solution"}']) == 0
    assert "custom: 100.0%" in capsys.readouterr().out
    assert main([*words, "--fields", value]) == 2 and f"({field})" in capsys.readouterr().err


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refused_request_ends_it_with_the_endpoints_words(data: Path, tmp_path: Path, serve: Callable[[Answer], Server], status: int) -> None:
    server = serve(lambda _body, _times: (status, {"error": {"message": "no such key"}}, {}))
    with pytest.raises(ConfigError, match=f"{status}: no such key") as refused:
        evaluate("gsm8k", data, Endpoint(server.url), out=tmp_path / "out.json")
    assert refused.value.field == "endpoint"


def test_a_call_that_was_cut_off_goes_on_and_asks_nothing_twice(data: Path, tmp_path: Path, serve: Callable[[Answer], Server]) -> None:
    server = serve(right)
    out, one = tmp_path / "out.json", {"num_samples": 1}
    evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides=one, limit=2)
    kept = out.with_name("out.json.samples.jsonl")
    kept.write_bytes(kept.read_bytes() + b'{"row": 2, "samp')
    whole = evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides=one)
    assert len(server.asked) == 6 and whole["num_problems"] == 6 and [one["row"] for one in whole["problems"]] == list(range(6))
    assert evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides=one) == whole and len(server.asked) == 6
    with pytest.raises(ConfigError, match=r"temperature 0\.6 there and 0\.7 here"):
        evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides={**one, "temperature": 0.7})
    data.write_text(data.read_text() + json.dumps(ROWS[0]) + "\n")
    with pytest.raises(ConfigError, match="data_sha256"):
        evaluate("gsm8k", data, Endpoint(server.url), out=out, overrides=one)
