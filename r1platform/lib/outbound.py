"""A request to an address that a person chose: the name is resolved here, every address it has is checked, and the
connection is made to one that was checked, so that a name which changes in between leads nowhere else.

Redirects are not followed. The whole exchange has one deadline, and only the beginning of an answer is read.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore

SECONDS = 8.0
"""From the first connection to the end of what is read."""
MAX_ANSWER_BYTES = 2048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """The name has no address, or one that is not public; the sentence says which."""


class Unreachable(OSError):
    """Nobody answered in time, or not in HTTP; the sentence says how."""


@dataclass(frozen=True)
class Answer:
    """What came back: the status and the beginning of the text."""

    status: int
    text: str


def post(url: str, *, body: bytes, headers: Mapping[str, str], allow_private: bool, seconds: float = SECONDS) -> Answer:
    """Posts `body` and returns the answer, whatever its status. Raises AddressRefused, Unreachable."""
    network = _Network(allow_private=allow_private, deadline=time.monotonic() + seconds)
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), network_backend=network) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body, extensions={"timeout": timeouts}) as answer,
        ):
            return Answer(answer.status, _beginning(answer.iter_stream()).decode(errors="replace").replace("\x00", ""))
    except httpcore.TimeoutException as error:
        raise Unreachable(f"It did not answer within {seconds:.0f} seconds.") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, ssl.SSLError) as error:
        raise Unreachable(f"The connection failed: {error or type(error).__name__}.") from error


def is_public(address: str) -> bool:
    """Whether an address is one of the open network, also where another one is folded into it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner: ipaddress.IPv4Address | None = None
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if inner is not None and not is_public(str(inner)):
        return False
    return (found.is_global or inner is not None) and not found.is_multicast


def addresses(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Every address of a name, in the resolver's order. Raises AddressRefused when one of them may not be reached."""
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise AddressRefused(f"The name {host} cannot be resolved.") from error
    inner = [address for address in found if not is_public(address)]
    if inner and not allow_private:
        raise AddressRefused(f"{host} leads to {inner[0]}, which is not a public address.")
    return list(dict.fromkeys(found))


def _beginning(chunks: Iterable[bytes]) -> bytes:
    read = b""
    for chunk in chunks:
        read += chunk
        if len(read) >= MAX_ANSWER_BYTES:
            break
    return read[:MAX_ANSWER_BYTES]


class _Network(httpcore.NetworkBackend):
    """Connects to addresses that were checked, all within one deadline."""

    def __init__(self, *, allow_private: bool, deadline: float) -> None:
        self._allow_private, self._deadline = allow_private, deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        failure: Exception = AddressRefused(f"The name {host} has no address.")
        for address in addresses(host, port, allow_private=self._allow_private):
            try:
                stream = self._plain.connect_tcp(address, port, _left(self._deadline), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._deadline)
        raise failure

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A stream whose every wait ends at the deadline: who sends a byte a second does not hold a worker."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("The deadline has passed.")
    return left
