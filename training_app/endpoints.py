"""Endpoints that people name: which addresses an evaluation may ask at all.

Public ones over https, and those that the operator has listed in `R1_EVALUATION_ENDPOINTS`. A name can lead anywhere, so the
process that asks checks every connection when it is made (`model_core.sources._hosts`); redirects are not followed.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from model_core.errors import ConfigError
from model_core.sources._hosts import PUBLIC

_DEFAULT_PORTS = {"http": 80, "https": 443}


def endpoint_checked(address: str) -> str:
    """The address without what does not belong to it. Raises ConfigError at `endpoint`."""
    address = address.strip().rstrip("/")
    parts = _parts(address)
    if parts is None or parts.username is not None or parts.query or parts.fragment:
        sentence = f"“{address[:80]}” is not the address of an endpoint; write https://host/v1, and the key in its own field."
        raise ConfigError(sentence, field="endpoint")
    if is_listed(address):
        return address
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise ConfigError(f"{host} would be asked without encryption; write https://. {_remedy()}", field="endpoint")
    if not _may_be_public(host):
        raise ConfigError(f"{host} is not a public address. {_remedy()}", field="endpoint")
    return address


def is_listed(address: str) -> bool:
    """Whether the operator has named its scheme, host and port."""
    found = _origin(address)
    return found is not None and found in {_origin(one) for one in settings.R1_EVALUATION_ENDPOINTS}


def hosts_of(address: str) -> list[str]:
    """What the process that asks may reach, as `model_core.sources._hosts` reads it."""
    parts = _parts(address)
    host = (parts.hostname or "") if parts else ""
    return [host if is_listed(address) else f"{PUBLIC}{host}"]


def _origin(address: str) -> tuple[str, str, int] | None:
    parts = _parts(address)
    if parts is None:
        return None
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]


def _parts(address: str) -> SplitResult | None:
    try:
        found = urlsplit(address)
        usable = found.scheme in _DEFAULT_PORTS and bool(found.hostname) and (found.port is None or found.port > 0)
    except ValueError:
        return None
    clean = len(address) <= 300 and address.isprintable() and not {" ", ","} & set(address)
    return found if usable and clean else None


def _may_be_public(host: str) -> bool:
    """Says no to what is plainly not; what a name leads to is seen when it is connected to."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".localhost", "."))


def _remedy() -> str:
    return "Whoever runs the platform can allow an inner one in R1_EVALUATION_ENDPOINTS."
