"""Carry out the session's requests on this machine, and undo all of them."""

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from meshdev.errors import DeviceError, FirewallError, LaptopError, MeshdevError, RouteError
from meshdev.helper.containers import Containers
from meshdev.helper.device import Device
from meshdev.helper.dns import DnsIntegration, Watched
from meshdev.helper.dns_file import FileDns
from meshdev.helper.dns_redirect import RedirectDns
from meshdev.helper.dns_resolved import ResolvedDns, resolved_answers
from meshdev.helper.firewall import LaptopFirewall
from meshdev.helper.journal import RESOLV_CONF, Journal
from meshdev.helper.routes import add_routes, set_routes
from meshdev.helper.sockets import upstream_sockets, upstream_tcp
from meshdev.helper.translations import TranslationFinder
from meshdev.helper.upkeep import Upkeep
from meshdev.host import dns as decision
from meshdev.netlink.netfilter import forget_flows
from meshdev.netlink.sock import Netlink
from meshdev.tun.device import TunQueue
from meshdev.wire.helper.answers import (
    Acknowledged,
    AddressSet,
    Beat,
    DnsOpened,
    DnsSet,
    Result,
    RoutesSet,
    Translations,
    TunOpened,
)
from meshdev.wire.helper.limits import MAX_ROUTES
from meshdev.wire.helper.lines import HelperFailure
from meshdev.wire.helper.requests import (
    AddRoutes,
    DnsSockets,
    FindTranslations,
    Heartbeat,
    OpenNetwork,
    OpenTun,
    RelayTarget,
    Request,
    SetAddress,
    SetDns,
    SetRelays,
    SetRoutes,
    Shutdown,
    UpstreamTcp,
)
from meshdev.wire.resolv_conf import ResolvConf
from meshdev.wire.values import IPAddress


@dataclass(slots=True)
class Outcome:
    """A result and the descriptors sent with it; our copies are closed afterwards."""

    result: Result | HelperFailure
    passed: Sequence[socket.socket | TunQueue] = field(default=())

    def close(self) -> None:
        """Close our copies."""
        for item in self.passed:
            item.close()


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """The namespaces of a helper that is not in the machine's own: what the session has sockets from (OpenNetwork, once
    only), and their resolv.conf."""

    sockets: socket.socket
    resolv_conf: Path


class LaptopChanges:
    """The changes that one session makes to this machine. Not thread-safe. :meth:`undo` reverts all of them."""

    def __init__(self, journal: Journal, own: OwnNetwork | None = None) -> None:
        """Inspect the machine and choose the DNS integration; changes nothing."""
        self._journal = journal
        self._own = own
        self._netlink = Netlink()
        self.upkeep = Upkeep(self._netlink)
        self._device: Device | None = None
        self._firewall: LaptopFirewall | None = None
        self._no_firewall: str | None = None
        self._unguarded = False
        try:
            self._firewall = LaptopFirewall(journal)
        except FirewallError as error:
            self._no_firewall = error.message
        self.decision = self._decide()
        self._dns = self._integration()
        self._containers = Containers(self._netlink, lambda: self.upkeep.news)
        self._routes = 0  # requested since the last SetRoutes: at least as many as there are
        self._desired: set[IPv4Network] = set()  # of those, the ones that the kernel accepted
        self._names: SetDns | None = None
        self._dns_active = False
        self._translations = TranslationFinder()
        self._relays: tuple[RelayTarget, ...] = ()

    @property
    def table(self) -> int | None:
        """The descriptor that owns our nft table; None where tables have no owner or there is no table."""
        return self._firewall.descriptor if self._firewall is not None else None

    def handle(self, request: Request) -> Outcome:
        """Carry out one request. Raises LaptopError; what was done before the error is undone at the end."""
        outcome = Outcome(Acknowledged())
        match request:
            case OpenTun(queues, unguarded):
                outcome = self._open_tun(queues, unguarded=unguarded)
            case SetAddress(address, mtu):
                outcome = self._set_address(address, mtu)
            case SetRoutes() | AddRoutes() | FindTranslations():
                outcome = self._route(request)
            case DnsSockets(upstreams):
                outcome = self._dns_sockets(upstreams)
            case UpstreamTcp() | OpenNetwork():
                outcome = Outcome(Acknowledged(), [self._socket(request)])
            case SetDns():
                outcome = self._set_dns(request)
            case SetRelays(relays):
                self._set_relays(relays)
            case Heartbeat():
                outcome = self._heartbeat()
            case Shutdown():
                raise AssertionError("the server handles it itself")
        return outcome

    def silence(self) -> None:
        """Give laptop and containers their DNS back until the session's next heartbeat.

        Raises LaptopError; then call again.
        """
        try:
            self._containers.silence()
        finally:
            if self._dns_active:
                self._dns.withdraw()
                self._dns_active = False

    def take_news(self, now: float) -> None:
        """Read the kernel's notifications."""
        self.upkeep.take_news(self._device, now)

    def look(self, now: float) -> None:
        """Restore what other programs removed from the device."""
        if self._device is not None and self._device.address is not None:
            self.upkeep.look(self._device, self._desired, now)

    @property
    def needs_look(self) -> bool:
        """True while there is a device that other programs could change."""
        return self._device is not None and self._device.address is not None

    @property
    def needs_beat(self) -> bool:
        """True while a session that falls silent would leave the laptop without DNS."""
        return self._dns_active or self._containers.asks_us

    def former(self) -> ResolvConf:
        """The DNS that the laptop uses without us."""
        return self._dns.former()

    def undo(self) -> list[MeshdevError]:
        """Revert everything, newest first, whatever fails. What failed stays in the journal."""
        steps: list[Callable[[], None]] = [
            self._containers.silence,
            self._dns.withdraw,
            self._dns.close,
            self._containers.close,
        ]
        if self._device is not None:
            steps.append(self._device.delete)
        if self._firewall is not None:
            steps.append(self._firewall.close)
        if self._device is not None:
            steps.append(self._device.forget)
        failures: list[MeshdevError] = []
        for step in steps:
            try:
                step()
            except MeshdevError as error:
                failures.append(error)
            except OSError as error:
                failures.append(LaptopError(f"an undo failed: {error}"))
        self.upkeep.close()
        self._netlink.close()
        return failures

    def _decide(self) -> decision.Decision:
        if self._own is not None:
            return decision.Decision("file", "resolv.conf is this mount namespace's own")
        found = Watched(RESOLV_CONF).read()
        resolved = set(found.asked) <= decision.STUBS and resolved_answers()
        return decision.decide(decision.Env(found, resolved, self._no_firewall))

    def _integration(self) -> DnsIntegration:
        chosen = self.decision.integration
        if chosen == "resolved":
            return ResolvedDns(lambda: (self._addressed()[0].index, self._addressed()[1]))
        if chosen == "redirect" and self._firewall is not None:
            return RedirectDns(self._firewall, self._journal)
        if chosen == "file":
            return FileDns(self._journal, RESOLV_CONF if self._own is None else self._own.resolv_conf)
        raise LaptopError(f"internal error: no DNS integration {chosen!r} here")

    def _open_tun(self, queues: int, *, unguarded: bool) -> Outcome:
        if self._device is not None:
            raise DeviceError("the device is open already")
        if self._firewall is None and not unguarded:
            raise _not_guarded(self._no_firewall)
        self._unguarded = unguarded
        self._device = Device(self._netlink, self._journal, queues)
        opened = self._device.opened
        return Outcome(TunOpened(opened.name, opened.offload), opened.queues)

    def _set_address(self, address: IPv4Address, mtu: int) -> Outcome:
        if self._device is None:
            raise DeviceError("set_address before open_tun")
        note, guard = self._no_firewall, None
        if self._firewall is not None:
            try:  # before the device is up: nothing may arrive first
                self._firewall.guard(self._device.name, address)
                guard = self._firewall
            except FirewallError as error:
                if not self._unguarded:
                    raise _not_guarded(error.message) from error
                note = error.message
        if address != self._device.address:
            self._desired = set()  # the kernel removes them with the former address
        self._containers.guarded(guard)
        self._device.set_address(address, mtu)
        return Outcome(AddressSet(note is None, note))

    def _route(self, request: SetRoutes | AddRoutes | FindTranslations) -> Outcome:
        if isinstance(request, FindTranslations):
            # In a network of its own there are no other programs' rules.
            found = self._translations.find(sorted(self._desired)) if self._own is None else ()
            return Outcome(Translations(found))
        device, _ = self._addressed()
        if isinstance(request, SetRoutes):
            self._routes = len(request.routes)
        elif self._routes + len(request.routes) > MAX_ROUTES:
            raise RouteError(f"a connection has at most {MAX_ROUTES} routes")
        else:
            self._routes += len(request.routes)
        done = self._apply(request)
        if done.refused:  # another program may just have set the device down, or removed its address
            self.upkeep.look(device, self._desired, time.monotonic())
            done = self._apply(request)
        return Outcome(done)

    def _apply(self, request: SetRoutes | AddRoutes) -> RoutesSet:
        device, address = self._addressed()
        if isinstance(request, SetRoutes):
            done = set_routes(self._netlink, device.index, address, request.routes)
            self._desired = set(done.routes)
        else:
            done = add_routes(self._netlink, device.index, address, request.routes)
            self._desired.update(done.routes)
        return done

    def _socket(self, request: UpstreamTcp | OpenNetwork) -> socket.socket:
        if isinstance(request, UpstreamTcp):
            return upstream_tcp(request.server)
        if self._own is None:
            raise LaptopError("the helper is in this machine's own network")
        return self._own.sockets

    def _set_relays(self, relays: Sequence[RelayTarget]) -> None:
        device, address = self._addressed()
        if self._firewall is None:
            raise FirewallError(self._no_firewall or "there is no nftables", hint="install nftables and connect again")
        if relays:
            device.allow_dnat_to_loopback()
        self._firewall.forward_relays(device.name, relays)
        # A flow of datagrams has no end: tracked ones would keep going to their former destination.
        changed = {each.relay for each in {*self._relays} ^ {*relays} if each.protocol == "udp"}
        if changed:
            forget_flows(
                lambda flow: flow.protocol == 17 and flow.sent_to[0] == address.packed and flow.sent_to[1] in changed
            )
        self._relays = tuple(relays)

    def _addressed(self) -> tuple[Device, IPv4Address]:
        if self._device is None or self._device.address is None:
            raise DeviceError("request before open_tun and set_address")
        return self._device, self._device.address

    def _dns_sockets(self, servers: Sequence[IPAddress]) -> Outcome:
        pairs = [*self._dns.listen(), *self._containers.listen(self._addressed()[1])]
        upstreams = [upstream_sockets(server) for server in servers]
        passed = [sock for pair in pairs for sock in pair.copies()] + [sock for _, some in upstreams for sock in some]
        opened = DnsOpened(
            tuple(pair.at for pair in pairs), tuple(found for found, _ in upstreams), self._containers.note()
        )
        return Outcome(opened, passed)

    def _set_dns(self, request: SetDns) -> Outcome:
        self._names = request
        self._activate_dns()
        note = None
        try:
            self._dns.forget_answers()
        except MeshdevError as error:  # queries reach the forwarder all the same
            note = f"a cache may give answers from before the connection for a while: {error}"
        self._try_containers()
        return Outcome(DnsSet(note))

    def _activate_dns(self) -> None:
        if self._names is None:
            return
        self._dns_active = False
        try:
            self._dns.listen()
            self._dns.activate(self._names.search, self._names.domains)
        except (MeshdevError, OSError):
            with contextlib.suppress(MeshdevError, OSError):
                self._dns.withdraw()  # half of it would be worse than none
            raise
        self._dns_active = True

    def _try_containers(self) -> None:
        """As :meth:`_follow_containers`. A failure does not fail the request; the next heartbeat reports it."""
        try:
            self._follow_containers()
        except MeshdevError as error:
            print(f"helper: containers of this machine: {error}", file=sys.stderr, flush=True)

    def _follow_containers(self) -> None:
        """Follow containers that start and stop; their queries come here while the machine's own do."""
        if self._device is not None and self._dns_active:
            self._containers.follow(self._device, self._dns.former().asked)

    def _heartbeat(self) -> Outcome:
        # Failures are reported in the answer; the next heartbeat tries again.
        if self._firewall is not None:
            self.upkeep.check("filter", self._firewall.put_back)
        self.upkeep.check("names", self._refresh_names)
        self.upkeep.check("containers", self._follow_containers)
        former = self._dns.former()
        return Outcome(Beat(self._dns_active, former.nameservers, former.search, *self.upkeep.report(time.monotonic())))

    def _refresh_names(self) -> str | None:
        if self._dns_active:
            return self._dns.refresh()
        self._activate_dns()
        return None


def _not_guarded(reason: str | None) -> FirewallError:
    return FirewallError(
        f"no packet filter can keep the cluster out of this machine: {reason}",
        hint="install nftables (Debian, Ubuntu: apt install nftables); "
        "`meshdev connect --unguarded` goes without: whoever controls the traffic-manager then reaches every port here",
    )
