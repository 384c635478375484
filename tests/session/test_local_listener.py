"""Ports at which a session serves something."""

import errno
import os
import socket

import pytest

from meshdev.errors import LaptopError
from meshdev.session.local_listener import local_listener


def test_it_listens_at_the_loopback_alone() -> None:
    with local_listener(0, "metrics", "--metrics-port") as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("address", ["0.0.0.0", "::1"])
def test_or_where_it_is_told(address: str) -> None:
    with local_listener(0, "the proxy", "--socks", address) as sock:
        assert sock.getsockname()[0] == address
    with pytest.raises(LaptopError, match=r"the proxy cannot be served at 192\.0\.2\.1:1: ") as caught:
        local_listener(1, "the proxy", "--socks", "192.0.2.1")
    assert "no such address" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EADDRINUSE, "another program has that port: choose another one with --port"),
        (errno.EACCES, "choose a port of 1024 or above with --port"),
        (errno.ENOBUFS, "choose another port with --port, or leave it out"),
    ],
)
def test_why_it_cannot(monkeypatch: pytest.MonkeyPatch, number: int, hint: str) -> None:
    def fails(*_: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "create_server", fails)
    with pytest.raises(LaptopError, match="cannot be served at 127") as caught:
        local_listener(80, "the page", "--port")
    assert caught.value.message == f"the page cannot be served at 127.0.0.1:80: {os.strerror(number)}"
    assert caught.value.hint == hint
