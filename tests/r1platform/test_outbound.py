"""Requests to addresses that people chose: what may be reached, to which address the connection goes, and when it ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpcore
import pytest

from r1platform.lib import outbound
from r1platform.lib.outbound import AddressRefused, Unreachable, addresses, is_public, post


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a server on this machine that treats its first connection as told; its address."""
    opened: list[socket.socket] = []

    def start(treat: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)

        def work() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # who asked may have gone
                connection.recv(65536)
                treat(connection)

        threading.Thread(target=work, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/hook"

    yield start
    for listener in opened:
        listener.close()


def says(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text)


def sent(url: str, **more: Any) -> outbound.Answer:
    return post(url, body=b"{}", headers={"content-type": "application/json"}, **{"allow_private": True, **more})


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "::", "fe80::1%eth0",
     "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "224.0.0.1",
     "ff02::1", "2001:db8::1"],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_of_the_open_network_are(address: str) -> None:
    assert is_public(address)


def resolving(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """Every name has these addresses."""
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: answer)


def test_one_inner_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "1.1.1.1", "10.0.0.1")
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1, which is not a public address"):
        addresses("hooks.example.org", 443, allow_private=False)
    assert addresses("hooks.example.org", 443, allow_private=True) == ["1.1.1.1", "10.0.0.1"]


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once: what it says a moment later leads nowhere."""
    asked: list[str] = []

    def connect(_self: Any, host: str, port: int, *_args: Any, **_kwargs: Any) -> httpcore.NetworkStream:
        asked.append(host)
        raise httpcore.ConnectError("refused")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    resolving(monkeypatch, "1.1.1.1", "1.0.0.1")
    with pytest.raises(Unreachable, match="The connection failed: refused"):
        sent("http://hooks.example.org/", allow_private=False)
    assert asked == ["1.1.1.1", "1.0.0.1"]


def test_an_inner_address_gets_no_connection(answering: Any) -> None:
    reached: list[bool] = []
    url = answering(lambda _connection: reached.append(True))
    with pytest.raises(AddressRefused):
        sent(url, allow_private=False)
    with pytest.raises(AddressRefused):
        sent(url.replace("127.0.0.1", "localhost"), allow_private=False)
    assert not reached


def test_what_is_answered_is_read_up_to_a_limit(answering: Any) -> None:
    answer = sent(answering(says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"x" * 9000)))
    assert answer.status == 200 and answer.text == "x" * outbound.MAX_ANSWER_BYTES


def test_a_redirect_is_an_answer(answering: Any) -> None:
    moved = answering(says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"))
    assert sent(moved).status == 302


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n"])
def test_who_speaks_no_http_is_unreachable(said: bytes, answering: Any) -> None:
    with pytest.raises(Unreachable):
        sent(answering(says(said)))


def test_who_dribbles_does_not_hold_the_caller(answering: Any) -> None:
    def dribble(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(50):
            time.sleep(0.05)
            connection.sendall(b"x")

    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer"):
        sent(answering(dribble), seconds=0.3)
    assert time.monotonic() - began < 1.5
