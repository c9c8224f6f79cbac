"""Runs a program that a model wrote: other processes, an empty directory, limits, and where Linux allows it no network.

It is a fence against accidents and lazy tricks, not against an attacker: the program runs as the same user, can read and
change what that user can, and one that looks into its caller's frames can claim to have passed. Run trainers that use it
in a container. `python _sandbox.py RESULT` is the inner end.
"""

from __future__ import annotations

import ctypes
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
"""Largest file of the program, its output included."""
MAX_FILES, MAX_PROCESSES = 64, 64
_APART = 0x10000000 | 0x40000000 | 0x20000000
"""CLONE_NEWUSER, CLONE_NEWNET and CLONE_NEWPID of Linux: no network, and no process that outlives the first one."""
_PDEATHSIG = 1
_READY, _OPEN = "ready", "ready, with the network"


@dataclass(frozen=True)
class Ran:
    """How a program ended. `passed` None: the sandbox itself failed, which says nothing about the program."""

    passed: bool | None
    detail: str


def run_program(program: str, checks: str, *, deadline_seconds: float, memory_mb: int) -> Ran:
    """Runs `program` and then `checks` in its namespace; it passes when both come to their end."""
    token = secrets.token_hex(16)
    asked = {"program": program, "checks": checks, "token": token, "seconds": deadline_seconds, "memory": memory_mb << 20}
    with tempfile.TemporaryDirectory(prefix="r1-sandbox-") as outer:
        result, output, room = Path(outer, "result"), Path(outer, "output"), Path(outer, "room")
        room.mkdir()
        with output.open("wb") as printed:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(result)], stdin=subprocess.PIPE,
                    stdout=printed, stderr=printed, cwd=room, start_new_session=True,
                    env={"PATH": os.defpath, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                return Ran(None, f"the sandbox did not start: {error}")
            is_late = _waited(process, json.dumps(asked).encode(), deadline_seconds)
        said = result.read_text().splitlines() if result.exists() else []
        last = output.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
    return _judged(said, token, last, is_late=is_late, seconds=deadline_seconds)


def _waited(process: subprocess.Popen[bytes], asked: bytes, seconds: float) -> bool:
    """Lets it run for so long and ends what is left of it; whether it was late."""
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(asked)
            process.stdin.close()
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return False


def _judged(said: list[str], token: str, last: list[str], *, is_late: bool, seconds: float) -> Ran:
    words = last[0][:200] if last else "it ended early"
    if not said:
        return Ran(None, f"the sandbox failed: {words}")
    beside = "; the network could not be cut off" if said[0] == _OPEN else ""
    if token in said:
        return Ran(True, f"all checks pass{beside}")
    return Ran(False, (f"not done after {seconds:g} seconds" if is_late else words) + beside)


def main() -> None:
    """Reads what to run, gives up its means, and waits for a child that runs it and says the token when it came to its end."""
    asked, result = json.load(sys.stdin), os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    is_apart = _went_apart()
    _limit(asked)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    os.write(result, f"{_READY if is_apart else _OPEN}\n".encode())
    token, space = asked.pop("token"), {"__name__": "__main__"}
    exec(compile(asked["program"], "program", "exec"), space)  # noqa: S102  # this is the sandbox
    exec(compile(asked["checks"], "checks", "exec"), space)  # noqa: S102
    os.write(result, f"{token}\n".encode())


def _went_apart() -> bool:
    try:
        return bool(ctypes.CDLL(None).unshare(_APART) == 0)
    except (AttributeError, OSError):  # another system
        return False


def _limit(asked: dict[str, float]) -> None:
    import resource

    for name, most in (
        (resource.RLIMIT_CPU, int(asked["seconds"]) + 1), (resource.RLIMIT_AS, int(asked["memory"])),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES), (resource.RLIMIT_NOFILE, MAX_FILES), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, MAX_PROCESSES),
    ):  # fmt: skip
        resource.setrlimit(name, (most, most))


if __name__ == "__main__":
    main()
