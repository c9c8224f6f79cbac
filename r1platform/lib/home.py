"""What stands directly in R1_HOME: the secret key where the embedded servers listen, and what `up` says.

No Django here: settings.py reads it. The servers themselves are started by `r1platform.lib.embedded`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path

from r1platform.lib.environment import SettingError

MAX_SOCKET_PATH = 100
"""Linux allows 107 bytes in the path of a unix socket; what is left is room for the file's name."""


def secret_key(home: Path) -> str:
    """The key that signs sessions: made once, whole or not at all, readable by its owner only. Raises SettingError."""
    path = home / "secret_key"
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _text(path) or _make_once(path)
    except (FileExistsError, NotADirectoryError):
        raise SettingError(f"R1_HOME is {home}, which is a file or lies below one; set it to a directory.") from None
    except OSError as error:
        raise SettingError(
            f"R1_HOME is {home}, and {error.filename or path} cannot be written ({error.strerror}); free space there, or set "
            "R1_HOME to a directory that you can write."
        ) from None


def socket_dir(home: Path, name: str) -> Path:
    """Directory for the unix socket of `name`: in the home, or under the temporary directory when that is too long."""
    inside = home.resolve() / name
    if len(str(inside).encode()) + len("/.s.PGSQL.5432") < MAX_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(str(inside).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"r1-{os.geteuid()}-{digest}"


def redis_socket(home: Path) -> Path:
    return socket_dir(home, "redis") / "redis.sock"


def base_url(home: Path) -> str:
    """Where the platform of this home can be reached while `./r1 up` runs, as its up.json says; empty when none runs."""
    try:
        found: dict[str, str] = json.loads((home / "up.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return ""
    return found["base_url"]


def _make_once(path: Path) -> str:
    """Writes the key under another name and renames it; of several processes one makes it and the others read it."""
    with path.with_name("secret_key.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if text := _text(path):
            return text
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".secret_key-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(50))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return _text(path)


def _text(path: Path) -> str:
    """What the file holds; empty when there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
