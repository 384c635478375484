"""The session's view of this machine: the device it was given, its address, its routes, and the helper's beat."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType
from typing import Final, Self

from meshdev.errors import LaptopError, MeshdevError
from meshdev.host.plan import LaptopNetwork as Network
from meshdev.host.pools import usable_pools
from meshdev.session.helper_client import HelperClient
from meshdev.session.progress import Progress
from meshdev.session.routing import Routing
from meshdev.session.surroundings import look, sources
from meshdev.session.troubles import Troubles
from meshdev.tun.device import TunDevice
from meshdev.wire.control import Welcome
from meshdev.wire.helper.answers import Beat
from meshdev.wire.helper.limits import BEAT_SECONDS
from meshdev.wire.helper.lines import Greeting
from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.values import IPAddress

log = logging.getLogger(__name__)

#: The machine's name servers without us, the addresses from which they are asked, and the session's address.
Situation = tuple[tuple[IPAddress, ...], tuple[str | None, ...], IPv4Address | None]

#: sudo may be asking for a password; whoever does not want to type it presses Ctrl-C.
GREETING_SECONDS: Final = 600.0


class Laptop:
    """What the helper does for this session. ``routing`` applies as soon as there is an address."""

    def __init__(self, helper: HelperClient, options: ConnectOptions, progress: Progress) -> None:
        self.helper = helper
        self.routing = Routing(helper, options.also, options.never, self.surroundings)
        self.troubles = Troubles()
        """What is not as it should be on this machine."""
        self._greeting: Greeting | None = None
        self._resolvers: tuple[IPAddress, ...] = ()
        self._sources: tuple[str | None, ...] = ()
        self._search: tuple[str, ...] = ()
        self._address: IPv4Address | None = None
        self._changed = asyncio.Condition()
        self._carriers = options.carriers
        self._unguarded = options.unguarded
        self._progress = progress
        self._device: TunDevice | None = None
        self._closing = False

    @property
    def device(self) -> TunDevice:
        """The TUN device. Raises LaptopError before :meth:`open_device`."""
        if self._device is None:
            raise LaptopError("the TUN device is not open yet")
        return self._device

    @property
    def greeting(self) -> Greeting:
        """The helper's first words. Raises LaptopError before :meth:`open_device`."""
        if self._greeting is None:
            raise LaptopError("the helper has not greeted yet")
        return self._greeting

    @property
    def helper_pid(self) -> int | None:
        """The helper's process, None before it greeted."""
        return self._greeting.pid if self._greeting else None

    @property
    def pools(self) -> tuple[IPv4Network, ...]:
        """The ranges a session address may come from, best first."""
        return usable_pools(self.surroundings())

    def surroundings(self) -> Network:
        """This machine's network as it is without us."""
        return look(self._resolvers)

    @property
    def resolvers(self) -> tuple[IPAddress, ...]:
        """The name servers this machine uses without us, now."""
        return self._resolvers

    @property
    def search(self) -> tuple[str, ...]:
        """The search list this machine uses without us, now."""
        return self._search

    @property
    def situation(self) -> Situation:
        """What sockets for names depend on."""
        return self._resolvers, self._sources, self._address

    async def wait_for_change(self, known: Situation) -> None:
        """Return when the situation is another than *known*."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.situation != known)

    async def open_device(self) -> None:
        """Wait for the helper and have it make the device."""
        self._greeting = await self.helper.greeting(GREETING_SECONDS)
        self._resolvers, self._search = self._greeting.nameservers, self._greeting.search
        self._sources = sources(self._resolvers)
        self._device = await self.helper.open_tun(self._carriers, unguarded=self._unguarded)
        self._progress.step("helper", f"device {self._device.name}, process {self._greeting.pid}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close the queues, so that the kernel removes the device, and let the helper go."""
        if self._device is not None:
            self._device.close()
        self.helper.abandon()

    async def set_address(self, welcome: Welcome) -> None:
        """The address of the first or of another manager; routes follow it."""
        answer = await self.helper.set_address(welcome.address, welcome.mtu)
        if answer.note:
            self._progress.note(f"no packet filter guards the device: {answer.note}")
        await self.routing.moved(welcome)
        async with self._changed:
            self._address = welcome.address
            self._changed.notify_all()

    async def keep_beating(self) -> None:
        """Tell the helper every second that this session lives; a silent one loses the laptop's DNS."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                beat = await self.helper.heartbeat()
                self._hear(beat)
                self._search = beat.search
                await self._follow(beat.nameservers)
            except LaptopError:
                if self._closing:
                    return
                raise

    def _hear(self, beat: Beat) -> None:
        for text in beat.repaired:
            log.warning("%s; it is put back", text)
        self.troubles.report("helper", beat.problems)

    async def _follow(self, resolvers: tuple[IPAddress, ...]) -> None:
        found = sources(resolvers)
        if (resolvers, found) != (self._resolvers, self._sources):
            async with self._changed:
                self._resolvers, self._sources = resolvers, found
                self._changed.notify_all()
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
