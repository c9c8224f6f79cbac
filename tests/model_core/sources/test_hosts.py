"""A narrowed network: in a process of its own, because there is no way back."""

from __future__ import annotations

import socket
import subprocess
import sys

TRIES = """
import socket, sys
from model_core.sources._hosts import HostRefused, narrow
port = int(sys.argv[1])
narrow(["localhost", ".invalid"])

def tried(make):
    try:
        make().close()
    except HostRefused as refused:
        return f"refused: {refused}"
    except OSError as error:
        return type(error).__name__
    return "connected"

def bare(address):
    one = socket.socket()
    one.settimeout(5)
    try:
        one.connect(address)
    except BaseException:
        one.close()
        raise
    return one

print(tried(lambda: bare(("127.0.0.1", port))))
print(tried(lambda: bare(("203.0.113.5", 80))))
print(tried(lambda: socket.create_connection(("example.org", 80))))
print(tried(lambda: socket.create_connection(("notlocalhost", port))))
print(tried(lambda: socket.create_connection(("below.invalid", 80))))
print(tried(lambda: socket.create_connection(("localhost", port))))
print(tried(lambda: bare(("127.0.0.2", port))))
"""
PRIVATE = """
import socket
socket.getaddrinfo = lambda host, *args, **kwargs: [(2, 1, 6, "", ("10.0.0.7", 80))]
from model_core.sources._hosts import HostRefused, narrow
narrow([".hub.example", "mirror.example", "public:api.example"])
for host in ("cdn.hub.example", "mirror.example", "api.example"):
    try:
        print(socket.getaddrinfo(host, 80)[0][4][0])
    except HostRefused as refused:
        print(refused)
"""


def said(program: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_only_what_an_allowed_host_resolves_to_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, far, other, near, below, allowed, neighbour = said(TRIES, str(server.getsockname()[1]))
    assert all("refused: " in one for one in (address, far, other, near, neighbour))
    assert below == "gaierror", "it may be asked for, and is not there"
    assert allowed == "connected"


def test_a_host_below_an_allowed_one_needs_a_public_address() -> None:
    below, named, by_a_user = said(PRIVATE)
    assert below == "cdn.hub.example has an address that is not public" and named == "10.0.0.7"
    assert by_a_user == "api.example has an address that is not public"
