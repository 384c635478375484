"""One session at the manager: an address, a TUN device, and the carriers that are up."""

import hashlib
import hmac
import logging
from collections.abc import Callable
from ipaddress import IPv4Address

from meshdev.config import GRACE_SECONDS
from meshdev.errors import DeviceError, MeshdevError, TunnelError
from meshdev.pump.loop import Loop, Timer
from meshdev.pump.pump import Pump
from meshdev.tun.device import TunDevice
from meshdev.wire.control import Hello, SessionInfo

log = logging.getLogger(__name__)


class Session:
    """Lives as long as one of its carriers, and GRACE_SECONDS longer, so that a laptop can come back.

    Owns *device*. *on_gone* is called once, when nobody came back in time.
    """

    def __init__(
        self,
        loop: Loop,
        hello: Hello,
        address: IPv4Address,
        device: TunDevice,
        offload: int,
        on_gone: Callable[["Session"], None],
    ) -> None:
        self.id = hello.session
        self.holder = hello.holder
        self.address = address
        self.device = device
        self.offload = offload
        self._secret = _digest(hello.secret)
        self._loop = loop
        self._on_gone = on_gone
        self._since = loop.clock()
        self._carriers: dict[int, Pump] = {}
        self._grace: Timer | None = None
        self._begin_grace()

    @property
    def carriers(self) -> int:
        """How many are up."""
        return len(self._carriers)

    def proves(self, secret: str) -> bool:
        """Whether *secret* is the one this session began with."""
        return hmac.compare_digest(self._secret, _digest(secret))

    def info(self) -> SessionInfo:
        """What others may see of it."""
        return SessionInfo(self.holder, self.address, int(self._loop.clock() - self._since))

    def join(self, index: int, pump: Pump) -> None:
        """Give the carrier its queue; an older carrier of the same number is ended."""
        if index >= len(self.device.queues):
            raise TunnelError(f"the session has {len(self.device.queues)} carriers, there is no number {index}")
        if old := self._carriers.get(index):
            old.end(TunnelError("replaced by a newer carrier of the same number"))
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._carriers[index] = pump
        queue = self.device.queues[index]
        queue.attach()
        pump.attach(queue.fileno())

    def leave(self, index: int, pump: Pump, error: MeshdevError) -> None:
        """The carrier ended; its flows go to the others, and with the last one the grace begins."""
        if self._carriers.get(index) is not pump:
            return
        del self._carriers[index]
        try:
            self.device.queues[index].detach()
        except DeviceError as error_too:  # the device was taken away: this session's trouble, not everybody's
            log.warning("%s of %s: %s", self.device.name, self.holder, error_too.message)
        log.info("carrier %d of %s ended: %s", index, self.holder, error.message)
        if not self._carriers:
            self._begin_grace()

    def send(self, frame: bytes) -> None:
        """A control frame to every carrier."""
        for pump in list(self._carriers.values()):
            pump.send(frame)

    def end(self, error: MeshdevError) -> None:
        """End every carrier; the grace begins."""
        for pump in list(self._carriers.values()):
            pump.end(error)

    def _begin_grace(self) -> None:
        self._grace = self._loop.call_later(GRACE_SECONDS, lambda: self._on_gone(self))

    def forget(self) -> None:
        """Stop the grace: whoever calls this knows that the session is over."""
        if self._grace is not None:
            self._grace.cancel()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
