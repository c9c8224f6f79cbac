"""The digest of a directory: SHA-256 of every file, and one over them as `sha256sum` would list them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 4 << 20
MAX_THREADS = 4
TELL_SECONDS = 0.25


@dataclass(frozen=True)
class Digest:
    """`files` has (name, bytes, SHA-256) of each, by name; `sha256` is over all of them."""

    sha256: str
    num_bytes: int
    files: tuple[tuple[str, int, str], ...]


class Unhashed(Exception):
    """`told` did not want to go on."""


def digest(directory: Path, names: list[str], *, told: Callable[[int], bool]) -> Digest:
    """Reads the files `names` of the directory, a few at a time. `told` hears the bytes that are read, four times a second, in the
    caller's thread; when it says False the rest is left. Raises Unhashed then, OSError for a file that cannot be read."""
    count = _Count()
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="hash") as pool:
        running = [pool.submit(_file, directory / name, count) for name in sorted(names)]
        waiting = set(running)
        try:
            while waiting:
                waiting = wait(waiting, timeout=TELL_SECONDS).not_done
                if not told(count.num_bytes):
                    raise Unhashed
        finally:
            count.ended = bool(waiting)
            pool.shutdown(cancel_futures=True)
    files = tuple((name, *future.result()) for name, future in zip(sorted(names), running, strict=True))
    whole = hashlib.sha256("".join(f"{found}  {name}\n" for name, _bytes, found in files).encode())
    return Digest(whole.hexdigest(), sum(size for _name, size, _sha in files), files)


class _Count:
    """What all threads have read together."""

    def __init__(self) -> None:
        self.num_bytes, self.ended = 0, False
        self._lock = threading.Lock()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self.num_bytes += num_bytes


def _file(path: Path, count: _Count) -> tuple[int, str]:
    found, size = hashlib.sha256(), 0
    with path.open("rb") as opened:
        while not count.ended and (chunk := opened.read(CHUNK_BYTES)):
            found.update(chunk)
            size += len(chunk)
            count.add(len(chunk))
    return size, found.hexdigest()
