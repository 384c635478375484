"""Control's core with what is around it as plain values: a tunnel container, sidecars, and a clock. No I/O."""

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from meshdev.errors import ProtocolError
from meshdev.identity.authority import Authority
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Spec
from meshdev.manager.control.core import PERMIT_SECONDS, Core
from meshdev.manager.control.pods import Pod
from meshdev.wire import control
from meshdev.wire.agent import PodPort
from meshdev.wire.frames import REPORT
from meshdev.wire.intercepts import Agents, Relay, Report
from meshdev.wire.manager import (
    Allow,
    Claimed,
    ListeningPort,
    ManagerAddress,
    PodReport,
    Synced,
    ToTunnel,
    Withdrawn,
)
from meshdev.wire.relay import RelayEndpoint, ToRelay
from tests.loops import Clock
from tests.manager.control.identities import identity
from tests.manager.control.sidecar_pod import SidecarPod

#: As timers are, in seconds: rounding makes none of them early.
_LATE = 1e-6
MANAGER = IPv4Address("10.244.0.9")
SESSION = IPv4Address("198.18.0.2")


@cache
def authority() -> Authority:
    """One for all: to make it takes a millisecond, and it says nothing of a world."""
    with TemporaryDirectory() as folder:
        return Authority.open(Path(folder) / "authority", "manager-uid", datetime.now(UTC))


def key(name: str) -> str:
    """That of the agent of a pod."""
    return identity(name).key


def attested(one: Spec, *names: str, part: int = 0) -> Agents:
    """What the session says of these pods."""
    return Agents(alias(one), part, tuple(identity(name).attested for name in names))


def alias(one: Spec) -> str:
    return one.id[::-1]


def relays(one: Spec, first: int) -> tuple[Relay, ...]:
    return tuple(Relay(port.remote, port.transport, first + at) for at, port in enumerate(one.ports))


def claimed(one: Spec, first: int = 20000, *, up: bool = True, **more: Any) -> Claimed:
    ups = tuple(ListeningPort(port.remote, port.transport) for port in one.ports if up)
    return Claimed(alias(one), specs.encode(one), "ann", SESSION, relays(one, first), ups, **more)


class World:
    """What the tunnel container has of control, by key; nobody is there yet."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.tunnel: dict[str, ToTunnel] = {}
        self.relay: dict[str, ToRelay] = {}
        self.trace_all = False
        """Of the next process of control."""
        self.core = self._core()
        self.pods: dict[str, SidecarPod] = {}

    def _core(self) -> Core:
        lifetime = timedelta(hours=1)
        return Core(
            authority(),
            self.tunnel.__setitem__,
            self.relay.__setitem__,
            self._later,
            self.clock,
            self.now,
            lifetime,
            trace_all=self.trace_all,
        )

    def now(self) -> datetime:
        """The time of day."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.clock.now)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.clock.now + seconds + _LATE, next(self._number), callback))

    def connect_tunnel(self, *claims: Claimed | Agents) -> None:
        """The tunnel container begins anew: it has nothing, and announces all of its claims."""
        self.tunnel.clear()
        self.core.tunnel_connected()
        self.tunnel |= dict(self.core.for_tunnel())
        self.hear(ManagerAddress(MANAGER), *claims, Synced())

    def restart_control(self) -> None:
        """Another process of control, which learns everything anew."""
        self._timers.clear()
        self.core = self._core()
        for pod in self.pods.values():
            pod.lose_manager()

    def hear(self, *messages: ManagerAddress | Claimed | Agents | Withdrawn | Synced) -> None:
        for message in messages:
            self.core.on_tunnel_message(message)

    def claim(self, one: Spec, *names: str, first: int = 20000, **more: Any) -> None:
        """The claim reaches these pods."""
        self.hear(claimed(one, first, **more), attested(one, *names))

    def pod(self, name: str) -> SidecarPod:
        return self.pods.setdefault(name, SidecarPod(self, name, IPv4Address("10.244.1.1") + len(self.pods)))

    def settle(self) -> None:
        """Everybody reads and answers until there is nothing more."""
        while any(each.step() for each in self.pods.values()):
            pass

    def wait(self, seconds: float) -> None:
        """Time passes; everybody keeps up."""
        until = self.clock.now + seconds + 2 * _LATE
        self.settle()
        while self._timers and self._timers[0][0] <= until:
            at, _, callback = heapq.heappop(self._timers)
            self.clock.now = at
            callback()
            self.settle()
        self.clock.now = until

    def known(self, name: str) -> list[Pod]:
        """What control has of the pod whose agent calls itself so."""
        return [each for each in self.core.pods() if each._hello is not None and each._hello.pod == name]

    def listening(self, name: str) -> dict[PodPort, int]:
        """What control keeps of where the Envoy of that pod listens."""
        return next(
            (dict(each._listeners.ports) for each in self.core.pods() if each._hello and each._hello.pod == name), {}
        )

    def has_decided(self, name: str) -> bool:
        """Whether control sent what to decide by since it knows the pod: else it does not know what is on."""
        return any(
            each._last_redirect is not None for each in self.core.pods() if each._hello and each._hello.pod == name
        )

    def allowed(self, relay: int) -> set[IPv4Address]:
        """Whose datagrams are let through."""
        self.wait(PERMIT_SECONDS)
        found = self.tunnel[f"allow {relay}"]
        assert isinstance(found, Allow)
        return set(found.addresses)

    def permitted(self, relay: int) -> set[str]:
        """The pods whose keys may use it."""
        self.wait(PERMIT_SECONDS)
        found = self.relay[f"relay {relay}"]
        assert isinstance(found, RelayEndpoint)
        assert found.address == SESSION
        return {name for name in self.pods if key(name) in found.keys}

    def reports(self, one: Spec) -> dict[str, Report]:
        """The newest of each pod."""
        found = {}
        for message in self.tunnel.values():
            if isinstance(message, PodReport) and message.id == alias(one):
                report = control.decode(REPORT, message.body)
                assert isinstance(report, Report)
                assert (report.id, report.pod, report.state == "gone") == (one.id, message.pod, message.gone)
                found[report.pod] = report
        return found

    def states(self, one: Spec) -> dict[str, str]:
        return {pod: report.state for pod, report in self.reports(one).items()}


def unreadable(one: Spec) -> Claimed:
    message = Claimed(alias(one), "{}", "ann", SESSION, (), ())
    try:
        specs.decode(message.spec)
    except ProtocolError:
        return message
    raise AssertionError
