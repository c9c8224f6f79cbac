"""The network of this process narrowed to some hosts, for one that reads what a stranger has named.

A repository of datasets may name files at any address, and a host may send on to another: so not the names are checked but
every connection, when it is made. Connections that Python does not make (none of the loader's) are not seen.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

HOSTS = "MODEL_CORE_HOSTS"
"""Environment variable with the hosts that this process may reach, separated by commas; unset: any."""
PUBLIC = "public:"
"""Before a host that a user has named: it counts only with public addresses."""


class HostRefused(OSError):
    """A connection that is not allowed here."""


def narrow_as_asked() -> None:
    """Narrows the network when whoever started this process asked for it."""
    if HOSTS in os.environ:
        narrow([host for host in os.environ[HOSTS].split(",") if host])


def narrow(hosts: Sequence[str]) -> None:
    """From now on this process reaches only what one of `hosts` resolves to; there is no way back.

    `.hf.co` stands for every host below it, and for those only public addresses count, as for `public:api.example.com`; a host
    that is named outright may have any.
    """
    resolve, known = socket.getaddrinfo, set[str]()

    def narrowed(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = (host.decode("idna") if isinstance(host, bytes) else str(host or "")).lower().rstrip(".")
        if name in known:  # an address that was resolved before
            return resolve(host, *args, **kwargs)
        is_named = name in hosts
        is_public = f"{PUBLIC}{name}" in hosts or name.endswith(tuple(one for one in hosts if one.startswith(".")))
        if not is_named and not is_public:
            raise HostRefused(f"{name or 'an unnamed host'} is not among the hosts that may be reached: {', '.join(hosts)}")
        found = resolve(host, *args, **kwargs)
        addresses = {str(info[4][0]) for info in found}
        if not is_named and not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses):
            raise HostRefused(f"{name} has an address that is not public")
        known.update(addresses)
        return found

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in {"socket.connect", "socket.sendto"} and isinstance(args[1], tuple) and args[1][0] not in known:
            raise HostRefused(f"{args[1][0]} is not the address of a host that may be reached")

    socket.getaddrinfo = narrowed
    sys.addaudithook(watch)
