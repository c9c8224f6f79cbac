"""`up` as a person runs it: it gets ready, refuses a second one, repairs what dies, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings

from r1platform.client import Client
from r1platform.lib import processes
from r1platform.lib.embedded import Postgres, Redis
from r1platform.lib.processes import ProcessRef, is_alive

ROOT = Path(settings.BASE_DIR)
WAIT_SECONDS = 90


class Up:
    """One `manage.py up` in a home of its own."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.log = home / "up.log"
        self.process = self.run()

    def environment(self) -> dict[str, str]:
        dropped = {"DATABASE_URL", "REDIS_URL", "R1_TEST_HOME"}
        return {key: value for key, value in os.environ.items() if key not in dropped} | {
            "R1_HOME": str(self.home), "R1_NODE_NAME": "up-test"
        }  # fmt: skip

    def run(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "manage.py", "up", "--port", str(self.port)]
        with self.log.open("ab") as log:
            return subprocess.Popen(argv, cwd=ROOT, env=self.environment(), stdout=log, stderr=log, start_new_session=True)

    def state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    def wait_ready(self) -> dict[str, Any]:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool(self.state().get("ready")) and self.state()["pid"] == self.process.pid

        wait_until(ready, self.log.read_text)
        return self.state()

    def everything(self) -> list[ProcessRef]:
        """Every process of this home: the children, the servers and `up` itself."""
        refs = [ProcessRef(**values) for values in self.state().get("children", {}).values()]
        refs += [ref for server in (Postgres(self.home), Redis(self.home)) if (ref := server.running()) is not None]
        return refs


def wait_until(condition: Callable[[], bool], explain: Callable[[], str], *, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("up")
    running = Up(home, free_port())
    yield running
    refs = running.everything()
    if running.process.poll() is None:
        running.process.terminate()
        try:
            running.process.wait(60)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait(10)
    for ref in refs:
        processes.stop_group(ref, grace_seconds=2)
    for server in (Redis(home), Postgres(home)):
        server.stop(seconds=5)


def test_up_from_start_to_end(up: Up) -> None:
    """Two lives: ready, a link that signs in once, a second `up` is refused, a dead web comes back; killed, what it left
    alive is ended or adopted by the next one, which ends without rest."""
    state = up.wait_ready()
    assert (up.home / "up.json").stat().st_mode & 0o077 == 0, "it holds a sign-in link"
    silent, spoke_at = HTTPConnection(urlsplit(state["base_url"]).netloc), time.monotonic()
    silent.request("GET", "/livez")
    assert silent.getresponse().read() is not None

    with httpx.Client(base_url=state["base_url"], follow_redirects=False) as browser:
        page = browser.get(state["sign_in_path"])
        assert page.status_code == 200 and "sessionid" not in browser.cookies, "looking does not use the link up"
        headers = {"X-CSRFToken": browser.cookies["csrftoken"], "Referer": state["base_url"]}
        assert browser.post(state["sign_in_path"], headers=headers).status_code == 302
        assert browser.get("/api/v1/me/").json()["username"] == "admin"
        nodes = browser.get("/api/v1/nodes/").json()["results"]
        assert [node["name"] for node in nodes] == ["up-test"] and nodes[0]["is_up"]
        assert len(nodes[0]["devices"]) >= 1
    assert httpx.get(f"{state['base_url']}/static/plotly/plotly.min.js").is_success
    assert httpx.get(f"{state['base_url']}/static/../settings.py").status_code == 404

    running = up.everything()
    for part in ([], ["--only", "web", "--only", "beat"]):
        second = subprocess.run(
            [sys.executable, "manage.py", "up", "--port", str(free_port()), *part],
            cwd=ROOT, env=up.environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert second.returncode == 1 and "already runs" in second.stderr and str(state["pid"]) in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
    assert up.everything() == running and all(is_alive(ref) for ref in running), "a refused one touches nothing"

    code = "import json, r1platform.demo.stack as d; s = d.Stack(port=0); print(json.dumps(s.start())); s.stop(); s.wait()"
    demo = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", code],
        cwd=ROOT, env=up.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    used = json.loads(demo.stdout.splitlines()[-1])
    assert used["base_url"] == state["base_url"], "the demo uses the platform that runs, and leaves it running"
    assert all(is_alive(ref) for ref in running)
    with closing(Client.by_link(used["base_url"], used["sign_in_path"])) as api:
        assert api.get("me/")["username"] == "admin"

    silent.auto_open = 0  # it is not to connect anew
    silent.request("GET", "/livez")
    assert silent.getresponse().status == 200 and time.monotonic() - spoke_at > 6, "clients keep connections for some seconds"
    silent.close()

    web = ProcessRef(**state["children"]["web"])
    in_the_way = up.home / "up.json.tmp"
    in_the_way.mkdir()
    os.kill(web.pid, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return httpx.get(f"{state['base_url']}/readyz").is_success
        except httpx.TransportError:
            return False

    wait_until(lambda: not is_alive(web) and is_back(), up.log.read_text)
    assert "web ended unasked (signal 9)" in up.log.read_text()
    wait_until(lambda: "up.json cannot be written" in up.log.read_text(), up.log.read_text)
    assert up.process.poll() is None, "what cannot be written down ends nothing"
    in_the_way.rmdir()
    wait_until(lambda: up.state()["children"]["web"] != state["children"]["web"], up.log.read_text)

    start_after_a_kill(up)
    refs = up.everything()
    assert len(refs) == 5
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0, up.log.read_text()
    assert not [ref for ref in refs if processes.group_pids(ref)]
    assert not (up.home / "up.json").exists()


def start_after_a_kill(up: Up) -> None:
    """kill -9 for `up` itself, and another in its home."""
    before = up.state()
    up.process.kill()
    up.process.wait(10)
    old = [ProcessRef(**values) for values in before["children"].values()]
    database = Postgres(up.home).running()
    assert all(is_alive(ref) for ref in old) and database is not None
    up.process = up.run()
    after = up.wait_ready()
    assert not any(is_alive(ref) for ref in old)
    assert Postgres(up.home).running() == database, "the database is adopted"
    assert after["children"].keys() == before["children"].keys()


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if key not in {"DATABASE_URL", "REDIS_URL"}}
        done = subprocess.run(
            [sys.executable, "manage.py", "up", "--port", str(port)],
            cwd=ROOT, env=environment | {"R1_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1 and f"Port {port}" in done.stderr and "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "postgres.json").exists()
