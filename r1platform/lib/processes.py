"""Child processes that outlive their parent: started in a session of their own, told apart by pid and start time.

A pid alone names nothing: it is used again. A process is its pid, its start time as `/proc` has it, and the boot it
happened in. Stopping goes to the whole group, politely and then firmly, and returns only what was proven.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS = 0.02
_THREADS_SECONDS = 2.0
MARK = "R1_PROCESS_DIR"
"""Environment variable by which a process is found whose pid was never written down."""
_SECRETS = ("DATABASE_URL", "REDIS_URL", "R1_SECRET_KEY", "R1_EMAIL_URL", "DJANGO_SETTINGS_MODULE")


@dataclass(frozen=True)
class ProcessRef:
    """One process of one boot. `started_at` is in seconds since boot."""

    pid: int
    started_at: float
    boot_id: str


@cache
def boot_id() -> str:
    """Changes with every start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_at(pid: int) -> float | None:
    """Seconds from boot to the start of `pid`, or None when there is no such process. Zombies count as ended."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else int(stat[19]) / _TICKS


def this_process() -> ProcessRef:
    return reference(os.getpid())


def reference(pid: int) -> ProcessRef:
    """The reference of a process that runs now. Raises ProcessLookupError when it has ended."""
    start = started_at(pid)
    if start is None:
        raise ProcessLookupError(f"There is no process {pid}.")
    return ProcessRef(pid, start, boot_id())


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    user: pwd.struct_passwd | None = None,
) -> ProcessRef:
    """Starts `argv` in its own session with its output appended to `log`, as another user when `user` is given.

    The child is not waited for: whoever spawned it may end. Earlier children that have ended are reaped here, so that a
    worker which starts supervisors for weeks keeps no zombies. Raises FileNotFoundError when the program is missing.
    """
    for pid in [pid for pid, code in list(_exit_codes.items()) if code is None]:
        _reap(pid)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=nothing,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
    ref = ProcessRef(child.pid, _start_of_child(child), boot_id())
    _exit_codes[ref.pid] = None
    child.returncode = 0  # `_reap` waits for it; Popen need not warn when it goes out of scope
    return ref


def is_alive(ref: ProcessRef) -> bool:
    """Whether exactly this process still runs; a reused pid is not it."""
    _reap(ref.pid)
    return ref.boot_id == boot_id() and started_at(ref.pid) == ref.started_at


def exit_code(ref: ProcessRef) -> int | None:
    """Exit code of a process that this one spawned, once it has ended; None when unknown.

    A killed leader is a zombie a moment before its other threads are gone, and has no exit code until they are.
    """
    deadline = time.monotonic() + _THREADS_SECONDS
    while True:
        _reap(ref.pid)
        unknown = _exit_codes.get(ref.pid, 0) is None
        if not unknown or started_at(ref.pid) is not None or time.monotonic() > deadline:
            return _exit_codes.get(ref.pid)
        time.sleep(_POLL_SECONDS)


def group_pids(ref: ProcessRef) -> list[int]:
    """Live processes of its session: the process, its children, and those it left behind.

    Every member is asked for its session, so a group that lost its leader is still found. Empty after a reboot.
    """
    if ref.boot_id != boot_id():
        return []
    _reap(ref.pid)
    leader = started_at(ref.pid)
    if leader is not None and leader != ref.started_at:
        return []
    found = []
    for name in (entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        stat = _stat(int(name))
        if stat is None or stat[0] in "ZX":
            continue
        if int(stat[3]) == ref.pid and int(stat[19]) / _TICKS >= ref.started_at:
            found.append(int(name))
    return sorted(found)


def stop_group(ref: ProcessRef, *, grace_seconds: float) -> bool:
    """Sends SIGTERM, after `grace_seconds` SIGKILL, and returns True only when no process of the session is left."""
    for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for pid in group_pids(ref):
            _send(pid, sign)
        deadline = time.monotonic() + seconds
        while group_pids(ref):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return True
    return not group_pids(ref)


def child_environment(environment: Mapping[str, str], *, mark: Path) -> dict[str, str]:
    """What trainers and engines inherit: no address and no secret of the platform, no way to a model hub.

    `mark` is the directory that the process works in; `end_unrecorded` finds the process by it.
    """
    kept = {name: value for name, value in environment.items() if name not in _SECRETS}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", MARK: str(mark)}


def end_unrecorded(directory: Path) -> int:
    """Ends processes of this directory whose supervisor died before it wrote down their pid; returns how many."""
    ended = 0
    for process in psutil.process_iter():
        try:
            found = process.environ().get(MARK) == str(directory) and os.getsid(process.pid) == process.pid
            if found:
                ended += stop_group(reference(process.pid), grace_seconds=5)
        except (psutil.Error, ProcessLookupError, OSError):
            continue
    return ended


_exit_codes: dict[int, int | None] = {}
"""What this process spawned, by pid, with the exit code once the child was reaped."""


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on: 0 state, 1 parent, 2 group, 3 session, 19 start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rfind(")") + 2 :].split()


def _start_of_child(child: subprocess.Popen[bytes]) -> float:
    """Start time of a child; it stays readable after the child's end because nobody has waited for it yet."""
    stat = _stat(child.pid)
    assert stat is not None, "an unreaped child has a /proc entry"
    return int(stat[19]) / _TICKS


def _reap(pid: int) -> None:
    if _exit_codes.get(pid, 0) is not None:
        return
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        _exit_codes.pop(pid, None)  # somebody else has waited for it, so nobody knows
        return
    if found:
        _exit_codes[pid] = os.waitstatus_to_exitcode(status)


def _send(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
