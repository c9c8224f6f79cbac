"""What an operator says of single sign-on, read from the environment once: who is asked, who may come, what they become.

No Django here: settings.py reads it. What is done with it is in `r1platform.oidc`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from r1platform.lib.environment import SettingError

MAX_ISSUER = 200
ROLES = ("viewer", "editor")
"""What somebody new can become in the project; owners are made by owners."""
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


@dataclass(frozen=True)
class SingleSignOn:
    """An OpenID Connect provider and whom it may send."""

    issuer: str
    client_id: str
    client_secret: str
    name: str
    """As the button calls it."""
    domains: frozenset[str]
    """Of mail addresses; empty: any."""
    creates: bool
    """Whether somebody whom nobody knows here gets an account."""
    project: str
    """Short name of the project that somebody new joins; empty: none."""
    role: str


def single_sign_on(
    *, issuer: str, client_id: str, client_secret: str, name: str, domains: str, creates: bool, project: str, role: str
) -> SingleSignOn | None:
    """None without an issuer. Raises SettingError for what cannot be meant."""
    if not issuer:
        return None
    issuer = issuer.rstrip("/").removesuffix("/.well-known/openid-configuration")
    if not _is_address(issuer):
        raise SettingError(
            f"R1_OIDC_ISSUER is “{issuer[:MAX_ISSUER]}”; it is the https address of the provider, such as https://sso.example.org, "
            f"of at most {MAX_ISSUER} characters."
        )
    for variable, value in (("R1_OIDC_CLIENT_ID", client_id), ("R1_OIDC_CLIENT_SECRET", client_secret)):
        if not value:
            raise SettingError(f"{variable} is empty and R1_OIDC_ISSUER is set; the provider gives both when you register R1.")
    allowed = frozenset(domains.lower().split())
    for domain in allowed:
        if not _DOMAIN.fullmatch(domain):
            raise SettingError(f"R1_OIDC_DOMAINS has “{domain}”; it holds mail domains such as example.org, with blanks between.")
    if creates and not allowed:
        raise SettingError("R1_OIDC_CREATE is on without R1_OIDC_DOMAINS: all whom the provider knows could come. Name domains.")
    if role not in ROLES:
        raise SettingError(f"R1_OIDC_ROLE is “{role}”; it is one of {', '.join(ROLES)}.")
    return SingleSignOn(issuer, client_id, client_secret, name, allowed, creates, project, role)


def _is_address(issuer: str) -> bool:
    """Whether it is https, or http to this machine."""
    try:
        found = urlsplit(issuer)
        usable = bool(found.hostname) and not found.query and not found.fragment and (found.port is None or found.port > 0)
    except ValueError:
        return False
    return usable and len(issuer) <= MAX_ISSUER and is_safe(issuer)


def is_safe(address: str) -> bool:
    """Whether nobody between can read what is sent there: https, or http that does not leave this machine."""
    found = urlsplit(address)
    host = found.hostname or ""
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    return found.scheme == "https" or (found.scheme == "http" and is_here)
