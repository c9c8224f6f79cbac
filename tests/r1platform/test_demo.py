"""The demo's command: refused at once or carried out, and never a platform taken from under who looks at it."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from rich.console import Console
from rich.progress import Progress

from r1platform.client import PlatformError
from r1platform.demo import follow, story
from r1platform.management.commands import demo
from tests.r1platform.command_line import run, sentence_of


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", "2147483648"], "from 0 to 2147483647"),
        (["--engine", "nonsense"], "builtin"),
        (["--json", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
        (["--json", "/"], "--json /"),
        (["--port", "99999"], "--port is 99999"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=re.escape(says)):
        call_command("demo", *words)


def test_it_is_refused_before_anything_starts(tmp_path: Path) -> None:
    said = sentence_of(run("demo", "--engine", "sglang", home=tmp_path, R1_SGLANG_PYTHON="/nowhere/python"))
    assert "./r1 engine install sglang" in said
    assert {path.name for path in tmp_path.iterdir()} <= {"secret_key", "secret_key.lock"}


def test_asking_whether_a_file_can_be_written_leaves_no_file(tmp_path: Path) -> None:
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text("kept")
    for path in (new, old):
        demo._require_writable(path)
    assert not new.exists() and old.read_text() == "kept"


class Platform:
    """Stands in for the platform: writes down what the command does with it."""

    is_ours = True

    def __init__(self, *, port: int) -> None:
        self.did: list[str] = []
        MADE.append(self)

    def start(self) -> dict[str, Any]:
        return {"url": "http://x/", "base_url": "http://x", "sign_in_path": "/sign-in/y/"}

    def wait(self) -> None:
        self.did.append("waited")

    def stop(self) -> None:
        self.did.append("stopped")


MADE: list[Platform] = []


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Platform]]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(demo, "Stack", Platform)
    MADE.clear()
    yield Platform
    signal.signal(signal.SIGTERM, before)


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*_: Any) -> None:
        raise error

    monkeypatch.setattr(demo.Command, "_tell", tell)


@pytest.mark.parametrize(("words", "ours", "did"), [([], True, ["waited", "stopped"]), (["--exit"], True, ["stopped"]), ([], False, ["stopped"])])
def test_a_failed_launch_can_be_looked_at_first(
    platform: type[Platform], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], ours: bool, did: list[str]
) -> None:
    """`stop` ends only a platform of the demo's own; one that ran before is not waited for either."""
    monkeypatch.setattr(platform, "is_ours", ours)
    ends_with(PlatformError("The launch is held: below its gate. Look at http://x/launches/3/"), monkeypatch)
    with pytest.raises(CommandError, match="below its gate"):
        call_command("demo", *words)
    assert MADE[0].did == did
    if "waited" in did:
        assert "/launches/3/" in capsys.readouterr().out, "it is said before the wait"


@pytest.mark.parametrize(("ours", "says"), [(True, "./r1 up"), (False, "goes on")])
def test_ctrl_c_says_how_to_find_the_launch_again(
    platform: type[Platform], monkeypatch: pytest.MonkeyPatch, ours: bool, says: str
) -> None:
    monkeypatch.setattr(platform, "is_ours", ours)
    ends_with(story.Interrupted("/launches/3/"), monkeypatch)
    with pytest.raises(CommandError, match="/launches/3/") as ended:
        call_command("demo")
    assert says in str(ended.value) and MADE[0].did == ["stopped"]


def test_without_a_terminal_each_phase_says_its_start_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        """Two phases, one after the other; each is queued when it is first seen."""

        states = ["queued", "waiting"]

        def get(self, path: str) -> Any:
            if path.startswith("runs/"):
                return {"state": self.states[int(path.split("/")[1])]}
            runs = [{"id": number, "name": f"phase {number}", "state": state} for number, state in enumerate(self.states)]
            launch = {"state": "succeeded" if set(self.states) == {"succeeded"} else "running", "runs": runs}
            moved = next((number for number, state in enumerate(self.states) if state != "succeeded"), 0)
            self.states[moved] = {"waiting": "queued", "queued": "running"}.get(self.states[moved], self.states[moved])
            return launch

    api = Api()

    def follow_run(_api: Any, run_id: int, progress: Progress, bar: Any, *, deadline: float) -> None:
        api.states[run_id] = "succeeded"

    monkeypatch.setattr(follow, "follow_run", follow_run)
    out = io.StringIO()
    follow.follow_launch(api, 1, Console(file=out, width=100), seconds=10)  # type: ignore[arg-type]
    lines = [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    assert lines == [
        "phase 0: started (run 0)", "phase 0: succeeded after 0 s", "phase 1: started (run 1)", "phase 1: succeeded after 0 s",
    ]  # fmt: skip


@pytest.mark.parametrize(("left", "words"), [(0.469, "a few seconds left"), (9.9, "a few seconds left"), (42.2, "42 s left")])
def test_little_time_left_is_said_in_words(left: float, words: str) -> None:
    with Progress() as progress:
        bar = progress.add_task("run", text="")
        payload = {"stage": "train", "step": 3, "total": 4, "fraction": 0.75, "remaining_seconds": left}
        follow.draw({"type": "event", "kind": "progress", "payload": payload}, progress, bar)
        assert progress.tasks[0].fields["text"] == f"train 3 of 4 · {words}"
