"""The session's view of this machine: the device it was given, its address, its routes, and the helper's beat."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.errors import LaptopError, MeshdevError
from meshdev.host.plan import LaptopNetwork as Network
from meshdev.host.plan import usable_pools
from meshdev.isolation.network import THIS_NETWORK, NetworkSockets, OtherNetwork
from meshdev.published import Published
from meshdev.session.helper_client import HelperClient
from meshdev.session.progress import Progress
from meshdev.session.routing import Routing
from meshdev.session.state import SessionState
from meshdev.session.surroundings import look, own_resolv_conf, sources
from meshdev.session.troubles import Troubles
from meshdev.tun.device import TunDevice
from meshdev.wire.control import Welcome
from meshdev.wire.helper.answers import Beat
from meshdev.wire.helper.limits import BEAT_SECONDS
from meshdev.wire.helper.lines import Greeting
from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.values import IPAddress

log = logging.getLogger(__name__)

#: sudo may be asking for a password; whoever does not want to type it presses Ctrl-C.
GREETING_SECONDS: Final = 600.0


@dataclass(frozen=True)
class DnsSituation:
    """What sockets for names depend on."""

    resolvers: tuple[IPAddress, ...]
    """The name servers that this machine uses without us."""
    sources: tuple[str | None, ...]
    """The address from which each of them is asked."""
    address: IPv4Address | None = None
    """The session's; None before the manager gave one."""


@asynccontextmanager
async def opened_laptop(sock: socket.socket, options: ConnectOptions, progress: Progress) -> AsyncIterator["Laptop"]:
    """Wait for the helper at the other end of *sock* and have it make the device.

    When the context is left the queues are closed, so that the kernel removes the device, and the helper is let go.
    """
    helper = HelperClient(sock)
    try:
        greeting = await helper.greeting(GREETING_SECONDS)
        device = await helper.open_tun(options.carriers, unguarded=options.unguarded)
        progress.step("helper", f"device {device.name}, process {greeting.pid}")
        with contextlib.closing(device):
            if not options.isolated:
                yield Laptop(helper, greeting, device, options, progress)
                return
            with contextlib.closing(OtherNetwork(await helper.open_network())) as network:
                yield Laptop(helper, greeting, device, options, progress, network)
    finally:
        helper.abandon()


class Laptop:
    """What the helper does for this session. Made by :func:`opened_laptop`."""

    def __init__(
        self,
        helper: HelperClient,
        greeting: Greeting,
        device: TunDevice,
        options: ConnectOptions,
        progress: Progress,
        network: NetworkSockets = THIS_NETWORK,
    ) -> None:
        self.isolated = options.isolated
        """The connection is in namespaces of its own, where only the helper may change anything."""
        self.network = network
        """Where the cluster is reached."""
        self.programs = network if options.socks is None else THIS_NETWORK
        """Where programs listen that answer in place of a workload: a proxy's user starts none in that network."""
        self.helper = helper
        self.device = device
        self.dns_integration = greeting.dns
        self.routing = Routing(helper, options.also, options.never, self.surroundings)
        """Applies as soon as there is an address."""
        self.troubles = Troubles()
        """What is not as it should be on this machine."""
        self.search = greeting.search
        """The search list this machine uses without us, now."""
        resolvers = self._resolvers(greeting.nameservers)
        self.situation = Published(DnsSituation(resolvers, sources(resolvers)))
        self._pid = greeting.pid
        self._progress = progress
        self._closing = False

    def show(self, state: SessionState) -> SessionState:
        """*state*, with what is known here."""
        return replace(
            state,
            helper_pid=self._pid,
            routes=self.routing.routes,
            troubles=self.troubles.notes(),
            trouble_sources=self.troubles.sources(),
            notes=(*state.notes, *self.routing.notes),
        )

    @property
    def pools(self) -> tuple[IPv4Network, ...]:
        """The ranges a session address may come from, best first."""
        return usable_pools(self.surroundings())

    def surroundings(self) -> Network:
        """This machine's network as it is without us."""
        return look(self.situation.value.resolvers)

    async def set_address(self, welcome: Welcome) -> None:
        """The address of the first or of another manager; routes follow it."""
        answer = await self.helper.set_address(welcome.address, welcome.mtu)
        if answer.note:
            self._progress.note(f"no packet filter guards the device: {answer.note}")
        await self.routing.set_address(welcome)
        self.situation.publish(replace(self.situation.value, address=welcome.address))

    async def keep_beating(self) -> None:
        """Send the helper a heartbeat every second; without it the laptop's DNS is restored."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                beat = await self.helper.heartbeat()
                self._on_beat(beat)
                self.search = beat.search
                await self._follow(self._resolvers(beat.nameservers))
            except LaptopError:
                if self._closing:
                    return
                raise

    def _on_beat(self, beat: Beat) -> None:
        for text in beat.repaired:
            log.warning("%s; it is put back", text)
        self.troubles.report("helper", beat.problems)

    def _resolvers(self, known: tuple[IPAddress, ...]) -> tuple[IPAddress, ...]:
        """The name servers that this machine uses without us; the helper *knows* those of its mount namespace."""
        return own_resolv_conf().nameservers if self.isolated else known

    async def _follow(self, resolvers: tuple[IPAddress, ...]) -> None:
        self.situation.publish(replace(self.situation.value, resolvers=resolvers, sources=sources(resolvers)))
        await self.routing.refresh()
        self.troubles.report("networks", self.routing.problems)

    async def watch_helper(self) -> None:
        """Raise LaptopError when the helper is gone: without it nothing would undo us."""
        await self.helper.gone.wait()
        if not self._closing:
            raise LaptopError("the helper has ended; the connection goes with it", hint="meshdev connect")

    @asynccontextmanager
    async def undoing(self) -> AsyncIterator[None]:
        """When the context is left the helper has undone everything it did, or is gone and did so by itself."""
        try:
            yield
        finally:
            self._closing = True
            with contextlib.suppress(MeshdevError):
                await self.helper.close()
