"""What stands directly in R1_HOME: the secret key and where the embedded servers listen.

No Django here: settings.py reads it. The servers themselves are started by `r1platform.lib.embedded`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

MAX_SOCKET_PATH = 100
"""Linux allows 107 bytes in the path of a unix socket; what is left is room for the file's name."""


def secret_key(home: Path) -> str:
    """The key that signs sessions: made once, readable by its owner only."""
    path = home / "secret_key"
    home.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip() or _written_by_another(path)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(50))
    return path.read_text().strip()


def socket_dir(home: Path, name: str) -> Path:
    """Directory for the unix socket of `name`: in the home, or under the temporary directory when that is too long."""
    inside = home.resolve() / name
    if len(str(inside).encode()) + len("/.s.PGSQL.5432") < MAX_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(str(inside).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"r1-{os.geteuid()}-{digest}"


def redis_socket(home: Path) -> Path:
    return socket_dir(home, "redis") / "redis.sock"


def _written_by_another(path: Path) -> str:
    """Another process made the file a moment ago and has not written it yet."""
    for _ in range(1000):
        if text := path.read_text().strip():
            return text
    raise RuntimeError(f"{path} is empty; delete it, and a new key is made.")
