"""A client of the system bus for method calls and properties, without a process for each as with busctl."""

import itertools
import os
import socket
import struct
import time
from pathlib import Path
from typing import Final

from meshdev.errors import DnsError, ProtocolError
from meshdev.wire import dbus

BUS: Final = Path("/run/dbus/system_bus_socket")
_SECONDS: Final = 2
_BUS_NAME: Final = "org.freedesktop.DBus"
_READ_BYTES: Final = 1 << 16


class SystemBus:
    """A connection to the bus, made when it is first needed and again after a failure. Not thread-safe."""

    def __init__(self, path: Path = BUS) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._serials = itertools.count(1)
        self._data = b""

    def properties(self, service: str, path: str, interface: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
        """The encoded values. Raises DnsError where service or bus do not answer."""
        return tuple(
            self.call(service, path, "org.freedesktop.DBus.Properties", "Get", interface, name) for name in names
        )

    def call(self, service: str, path: str, interface: str, member: str, *arguments: str) -> bytes:
        """The encoded body of the answer. Raises DnsError where service or bus do not answer."""
        try:
            return self._ask(self._sock or self._connect(), service, path, interface, member, *arguments)
        except BlockingIOError as error:  # SO_RCVTIMEO
            self.close()
            raise DnsError(f"{service} does not answer within {_SECONDS} s") from error
        except (OSError, ProtocolError) as error:
            self.close()
            raise DnsError(f"the system bus does not answer: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self._data = b""

    def _connect(self) -> socket.socket:
        self._sock = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _SECONDS, 0))
        sock.connect(str(self._path))
        sock.sendall(dbus.external(os.geteuid()))
        if not sock.recv(_READ_BYTES).startswith(b"OK "):
            raise ProtocolError("it rejects this user")
        sock.sendall(dbus.begin())
        self._ask(sock, _BUS_NAME, "/org/freedesktop/DBus", _BUS_NAME, "Hello")
        return sock

    def _ask(self, sock: socket.socket, service: str, path: str, interface: str, member: str, *arguments: str) -> bytes:
        serial = next(self._serials)
        sock.sendall(dbus.call(serial, service, path, interface, member, *arguments))
        deadline = time.monotonic() + _SECONDS
        while True:
            message = dbus.parse(self._data)
            if message is None:
                if time.monotonic() > deadline:  # any program may send us signals without end
                    raise BlockingIOError
                more = sock.recv(_READ_BYTES)
                if not more:
                    raise ConnectionResetError("it closed the connection")
                self._data += more
                continue
            self._data = self._data[message.size :]
            if message.answers != serial:  # a signal, or the late answer to a call that timed out
                continue
            if message.kind == dbus.METHOD_RETURN:
                return message.body
            if message.kind == dbus.ERROR:
                raise DnsError(f"{service} does not answer: {message.text[:300]}")
