"""Environment variables as settings.py takes them: a value that cannot be meant is refused with a sentence.

No Django here: settings.py reads it. `manage.py` prints a SettingError and ends.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import environ

_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_POSTGRES = ("postgres", "postgresql", "pgsql", "psql")
_MAIL = ("smtp", "smtps", "smtp+tls", "smtp+ssl", "consolemail", "filemail", "memorymail", "dummymail")
_REDIS = ("redis", "rediss", "unix", "memory")


class SettingError(Exception):
    """A setting that cannot be used; one sentence with the value, what is allowed and the remedy."""


def positive_number(name: str, text: str, *, default: int) -> int:
    """A whole number above 0; the default when it is unset. Raises SettingError."""
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 18 and int(text) > 0):
        raise SettingError(f"{name} is “{text}”; it is a whole number above 0 without a unit, such as {default}.")
    return int(text)


def yes_or_no(name: str, text: str) -> bool:
    """Raises SettingError for what is neither."""
    if text.lower() not in _YES + _NO:
        raise SettingError(f"{name} is “{text}”; say one of {', '.join(_YES)} or one of {', '.join(filter(None, _NO))}.")
    return text.lower() in _YES


def database(url: str) -> dict[str, Any]:
    """Django's settings of a PostgreSQL database. Raises SettingError, whose sentence leaves the password out."""
    found = _parts(url, _POSTGRES)
    if found is None or not found.path.strip("/"):
        raise SettingError(
            "DATABASE_URL is not the address of a PostgreSQL database; write postgres://user:password@host:5432/name, "
            "or unset it for the embedded one."
        )
    settings: dict[str, Any] = environ.Env.db_url_config(url)
    return settings


def mail(url: str) -> dict[str, Any]:
    """Django's settings of a mail server; without an address nothing is sent. Raises SettingError without the password."""
    if _parts(url or "dummymail://", _MAIL) is None:
        raise SettingError(
            "R1_EMAIL_URL is not the address of a mail server; write smtp+tls://user:password@host:587, or unset it for no mail."
        )
    settings: dict[str, Any] = environ.Env.email_url_config(url or "dummymail://")
    return settings


def redis_address(url: str) -> str:
    """The address of a Redis server. Raises SettingError, whose sentence leaves the password out."""
    if _parts(url, _REDIS) is None:
        remedy = "write redis://host:6379/0, or unset it for the embedded one."
        raise SettingError(f"REDIS_URL is not the address of a Redis server; {remedy}")
    return url


def _parts(url: str, schemes: tuple[str, ...]) -> Any:
    """The parts of an address with one of these schemes, or None."""
    try:
        found = urlsplit(url)
        usable = found.scheme in schemes and "://" in url and (found.port is None or found.port > 0)
    except ValueError:
        return None
    return found if usable else None
