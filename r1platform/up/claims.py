"""What one `up` holds while it runs: its home when the servers are embedded, and each of its parts on its node.

A lock ends with its process, so it cannot be stale. Beside the locks lies what each `up` wrote down about itself.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from r1platform.lib import processes
from r1platform.lib.processes import ProcessRef


class UpError(Exception):
    """Why the platform does not start; one sentence with the remedy."""


class Claims:
    """The locks of one `up`. With embedded servers one `up` has the whole home: whoever ends takes them down."""

    def __init__(self, home: Path, *, node: str, roles: tuple[str, ...], whole_home: bool) -> None:
        self.home, self.node, self.roles, self.whole_home = home, node, roles, whole_home
        self.held: list[TextIO] = []

    def take(self) -> None:
        """Takes every lock or none. Raises UpError, which names who has it."""
        if self.whole_home and not self._lock("up"):
            raise UpError(
                f"The platform already runs in {self.home}{_where(self.home)}; end that one with Ctrl-C, or set R1_HOME to "
                "another directory. Parts can run apart only with DATABASE_URL and REDIS_URL."
            )
        for role in self.roles:
            if not self._lock(f"up-{role}-{quote(self.node, safe='')}"):
                self.release()
                raise UpError(
                    f"The {role} of node {self.node} already runs in {self.home}{_where(self.home)}; end that one with Ctrl-C, "
                    "or give this one another R1_NODE_NAME."
                )

    def release(self) -> None:
        while self.held:
            self.held.pop().close()

    def orphans(self) -> Iterator[tuple[Path, dict[str, ProcessRef]]]:
        """What killed `up`s of this home left running, as far as it is ours to end: their files and their children."""
        for path, found in ready_files(self.home):
            children = {name: ProcessRef(**values) for name, values in found.get("children", {}).items()}
            ours = self.whole_home or (found.get("node") == self.node and set(children) <= set(self.roles))
            if ours and not is_up(found):
                yield path, children

    def _lock(self, name: str) -> bool:
        file = (self.home / f"{name}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self.held.append(file)
        return True


def ready_file(home: Path, *, node: str, roles: tuple[str, ...], all_roles: tuple[str, ...]) -> Path:
    """Where an `up` writes down what it runs: up.json for the whole platform."""
    suffix = "" if roles == all_roles else "-" + "-".join([*roles, quote(node, safe="")])
    return home / f"up{suffix}.json"


def ready_files(home: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What every `up` of this home wrote down about itself, also one that was killed."""
    for path in sorted(home.glob("up*.json")):
        try:
            found = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if isinstance(found, dict) and "pid" in found:
            yield path, found


def is_up(found: dict[str, Any]) -> bool:
    """Whether the `up` that wrote this down still runs."""
    return processes.is_alive(ProcessRef(found["pid"], found["started_at"], found["boot_id"]))


def _where(home: Path) -> str:
    """The address and process of a live `up`, when it has written them down already."""
    live = next((found for _, found in ready_files(home) if is_up(found)), None)
    return f" at {live['base_url']} (pid {live['pid']})" if live else ""
