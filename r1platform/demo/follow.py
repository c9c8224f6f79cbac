"""Follows a launch in the terminal: one progress bar a phase, fed by the run's socket.

A dropped socket is opened again after the last event that was seen, as a browser does. Where there is no terminal the
bars are left out, and a line is written when a phase starts and when it ends.
"""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from r1platform.client import Client, PlatformError

RUN_ENDS = {"succeeded", "gate_failed", "failed", "lost", "stopped", "paused"}
LAUNCH_ENDS = {"succeeded", "held", "failed", "stopped", "paused"}


def follow_launch(api: Client, launch_id: int, console: Console, *, seconds: float) -> Any:
    """Draws the launch until it ends and returns its last JSON. Raises PlatformError when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    not_live = RUN_ENDS | ({"waiting"} if console.is_terminal else {"waiting", "queued"})
    columns = (TextColumn("{task.fields[name]:<20}"), BarColumn(36), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, refresh_per_second=4, console=console, disable=not console.is_terminal) as progress:
        bars: dict[int, TaskID] = {}
        while True:
            launch = api.get(f"launches/{launch_id}/")
            for run in launch["runs"]:
                if run["id"] not in bars:
                    bars[run["id"]] = progress.add_task("", total=1.0, start=False, name=run["name"], text="waiting")
            if launch["state"] in LAUNCH_ENDS:
                return launch
            if time.monotonic() > deadline:
                raise PlatformError(f"The launch is still {launch['state']} after {seconds:.0f} s.")
            live = next((run for run in launch["runs"] if run["state"] not in not_live), None)
            if live is None:
                time.sleep(0.25)
                continue
            progress.start_task(bars[live["id"]])
            _follow_phase(api, live, progress, bars[live["id"]], deadline=deadline)


def _follow_phase(api: Client, run: dict[str, Any], progress: Progress, bar: TaskID, *, deadline: float) -> None:
    """One run, with a line at its start and its end where nobody sees a bar."""
    began, written = time.monotonic(), not progress.console.is_terminal
    if written:
        progress.console.print(f"{run['name']}: started (run {run['id']})")
    follow_run(api, run["id"], progress, bar, deadline=deadline)
    if written:
        state = api.get(f"runs/{run['id']}/")["state"]
        progress.console.print(f"{run['name']}: {state.replace('_', ' ')} after {time.monotonic() - began:.0f} s")


def follow_run(api: Client, run_id: int, progress: Progress, bar: TaskID, *, deadline: float) -> None:
    """Draws one run from its socket until it ends or the deadline passes."""
    after = 0
    while time.monotonic() < deadline:
        try:
            with connect(
                f"{api.socket_url}/ws/runs/{run_id}/?after={after}", additional_headers=api.socket_headers, max_size=None
            ) as socket:
                while time.monotonic() < deadline:
                    message = json.loads(socket.recv(timeout=60))
                    after = message.get("id", after) if message["type"] == "event" else after
                    if draw(message, progress, bar):
                        return
        except (ConnectionClosed, InvalidStatus, TimeoutError, OSError):
            time.sleep(0.5)
            if api.get(f"runs/{run_id}/")["state"] in RUN_ENDS:
                return


def draw(message: dict[str, Any], progress: Progress, bar: TaskID) -> bool:
    """Applies one message of the socket to the bar; says whether the run has ended."""
    state = message["state"] if message["type"] in {"hello", "state"} else None
    if isinstance(state, dict):
        state = state["state"]
    if state:
        progress.update(bar, text=state)
        if state in RUN_ENDS:
            progress.update(bar, completed=1.0 if state == "succeeded" else None)
            progress.stop_task(bar)
            return True
    if message["type"] == "event":
        payload = message["payload"]
        if message["kind"] == "progress":
            left = payload.get("remaining_seconds")
            tail = f" · {_left(left)} left" if left is not None else ""
            text = f"{payload['stage']} {payload['step']} of {payload['total']}{tail}"
            progress.update(bar, completed=payload["fraction"], text=text)
        elif message["kind"] == "evaluation":
            text = f"{payload['when']}: {payload['accuracy']:.1%} right of {payload['num_problems']}"
            progress.update(bar, text=text)
    return False


def _left(seconds: float) -> str:
    return "a few seconds" if seconds < 10 else f"{seconds:.0f} s"
