"""Runs a program that a model wrote: another process, its own session, an empty directory, limits, no network where possible.

It is a fence against accidents and lazy tricks, not against an attacker: the program runs as the same user and can read
what that user can. Run trainers that use it in a container. `python _sandbox.py` is the inner end.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 1 << 20
MAX_FILES = 64
_NO_NETWORK = 0x40000000 | 0x10000000
"""CLONE_NEWNET and CLONE_NEWUSER of Linux: a network of its own, in which nothing is."""


@dataclass(frozen=True)
class Ran:
    """How a program ended. `passed` None: the sandbox itself failed, which says nothing about the program."""

    passed: bool | None
    detail: str


def run_program(program: str, checks: str, *, deadline_seconds: float, memory_mb: int) -> Ran:
    """Runs `program` and then `checks` in its namespace; it passes when both come to their end."""
    token = secrets.token_hex(16)
    asked = {"program": program, "checks": checks, "token": token, "seconds": deadline_seconds, "memory": memory_mb << 20}
    with tempfile.TemporaryDirectory(prefix="r1-sandbox-") as directory:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, cwd=directory, start_new_session=True, env={"PATH": os.defpath, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            return Ran(None, f"the sandbox did not start: {error}")
        try:
            said, errors = process.communicate(json.dumps(asked).encode(), timeout=deadline_seconds)
        except subprocess.TimeoutExpired:
            return Ran(False, f"not done after {deadline_seconds:g} seconds")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if token.encode() in said:
        return Ran(True, "all checks pass")
    last = errors.decode(errors="replace").strip().splitlines()[-1:] or [f"it ended with status {process.returncode}"]
    if process.returncode == 97:
        return Ran(None, f"the sandbox failed: {last[0][:200]}")
    return Ran(False, last[0][:200])


def main() -> None:
    """Reads what to run, gives up its means, runs it, and says the token when it came to its end."""
    asked = json.load(sys.stdin)
    try:
        _limit(asked)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        os._exit(97)
    out = os.dup(1)
    os.dup2(2, 1)  # what the program prints is no token
    token, space = asked.pop("token"), {"__name__": "__main__"}
    exec(compile(asked["program"], "program", "exec"), space)  # noqa: S102  # this is the sandbox
    exec(compile(asked["checks"], "checks", "exec"), space)  # noqa: S102
    os.write(out, token.encode())


def _limit(asked: dict[str, float]) -> None:
    import ctypes
    import resource

    with suppress(AttributeError, OSError):  # another system, or not allowed: the network stays
        ctypes.CDLL(None).unshare(_NO_NETWORK)
    seconds = int(asked["seconds"]) + 1
    for name, most in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, int(asked["memory"])), (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_FILES), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(name, (most, most))


if __name__ == "__main__":
    main()
