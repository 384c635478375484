"""Intercepts as sessions claim them, and a listener in place of the container *control*."""

import socket
from pathlib import Path
from typing import Self

from meshdev.intercept import spec as specs
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec, Workload
from meshdev.wire.control import encode_body
from meshdev.wire.intercepts import Intercept, Report
from meshdev.wire.manager import Claimed, PodReport, Synced, ToControl, ToTunnel, decode_to_control, encode
from meshdev.wire.modes import MESH, PROXY, Mode
from tests.loops import DEADLINE_SECONDS

KEY = "a" * 64
WORKLOAD = Workload("default", "deployment", "b", "0f2e2d8c-uid")
HTTP = Port(8080, "http", 3000)


def spec(name: str, *ports: Port, mode: Mode = MESH, value: str = "1") -> Spec:
    """The intercept *name* (a letter or more)."""
    match = None if mode == PROXY else Match((HeaderMatch("a", "exact", value),))
    return Spec(name.encode().hex().ljust(32, "0")[:32], WORKLOAD, mode, match, tuple(sorted(ports or (HTTP,))))


def intercept(one: Spec, order: int, *, reset_older: bool = False) -> Intercept:
    return Intercept(one.id, specs.encode(one), reset_older, order)


def reported(alias: str, report: Report) -> PodReport:
    """As control sends it to the tunnel container, which knows the claim by *alias*."""
    return PodReport(alias, report.pod, report.state == "gone", encode_body(report))


class Listener:
    """Whoever is at the other end of the tunnel container's socket."""

    def __init__(self, folder: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(DEADLINE_SECONDS)
        self.sock.connect(str(folder / "tunnel.sock"))
        self.pod = self.hear()
        """The first that everybody hears: once it is here, nothing that happens is missed."""

    def hear(self) -> ToControl:
        return decode_to_control(self.sock.recv(1 << 17))

    def hear_all(self) -> list[ToControl]:
        """Everything up to the word that this is everything."""
        said: list[ToControl] = []
        while not said or said[-1] != Synced():
            said.append(self.hear())
        return said

    def claimed(self) -> Claimed:
        """The next claim that is told, whatever is told before."""
        while True:
            message = self.hear()
            if isinstance(message, Claimed):
                return message

    def say(self, message: ToTunnel | bytes) -> None:
        self.sock.send(message if isinstance(message, bytes) else encode(message))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
