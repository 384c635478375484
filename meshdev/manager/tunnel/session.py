"""One session at the manager: an address, a TUN device, and the carriers that are up.

What it is sent of its intercepts goes over one carrier as long as that is up: so nothing overtakes. When that carrier
ends, *on_control_carrier* has everything sent again on the next: nobody knows what arrived.
"""

import hashlib
import hmac
import logging
import math
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from meshdev.config import GRACE_SECONDS, PROTOCOL
from meshdev.errors import DeviceError, MeshdevError, TunnelError
from meshdev.manager.outbox import Outbox
from meshdev.pump.loop import Loop, Timer
from meshdev.pump.pump import Pump
from meshdev.rate import TokenBucket
from meshdev.tun.device import TunDevice
from meshdev.wire.control import Hello, SessionInfo

log = logging.getLogger(__name__)

#: Frames that may wait in that carrier, a quarter of what it bears; the others wait here and are replaced by
#: newer ones of the same key.
_MAX_WAITING: Final = 64
_RETRY_SECONDS: Final = 0.05
#: Keys that may wait here, beside those of all that is sent again on another carrier; one more ends all carriers. An
#: honest session has an answer to each of its messages, and of each of 2,112 agents a certificate and a report.
MAX_WAITING: Final = 8192
#: Frames of records that wait for a carrier, and their bytes: 60 sessions that read nothing take 30 of the container's
#: 128 MiB. Who loses some learns it by ClaimRecords.before. How many of them stand before packets there, as all control
#: frames do. How many one session is sent at once, and then a second.
MAX_RECORDS_WAITING: Final = 128
MAX_RECORDS_BYTES: Final = 512 << 10
_MAX_WAITING_BEFORE_RECORDS: Final = 2
RECORDS_SENT_PER_SECOND: Final = 512.0
#: Frames that one session is sent at once, and then a second: a report of each of 1,024 pods, and so many again every
#: two seconds. What pods report comes through this process, whose loop moves everybody's packets.
MAX_SENT: Final = 2048
SENT_PER_SECOND: Final = 512.0


class Session:
    """It exists as long as one of its carriers, and GRACE_SECONDS longer, so that a laptop can come back.

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
        on_control_carrier: Callable[["Session"], None],
    ) -> None:
        self.id = hello.session
        self.version = min(hello.newest, PROTOCOL)
        """The protocol that is spoken with it."""
        self.holder = hello.holder
        self.address = address
        self.device = device
        self.offload = offload
        self.proof = digest(hello.secret)
        """By which its address knows it again."""
        self._loop = loop
        self._on_gone = on_gone
        self._since = loop.clock()
        self._carriers: dict[int, Pump] = {}
        self._grace: Timer | None = None
        self._on_control_carrier = on_control_carrier
        self._control_carrier: int | None = None
        self._outbox: Outbox[bytes] = Outbox()
        self._most: float = MAX_WAITING
        self._records: deque[bytes] = deque()
        self._record_bytes = 0
        self._records_rate = TokenBucket(RECORDS_SENT_PER_SECOND, RECORDS_SENT_PER_SECOND, loop.clock())
        self._retry: Timer | None = None
        self._rate = TokenBucket(SENT_PER_SECOND, MAX_SENT, loop.clock())
        self._last_received = loop.clock()
        self.last_order = 0
        """The newest of its control messages."""
        self._begin_grace()

    @property
    def carriers(self) -> int:
        """How many are up."""
        return len(self._carriers)

    def proves(self, secret: str) -> bool:
        """Whether *secret* is the one this session began with."""
        return hmac.compare_digest(self.proof, digest(secret))

    def info(self) -> SessionInfo:
        """What others may see of it."""
        return SessionInfo(self.holder, self.address, int(self._loop.clock() - self._since))

    def join(self, index: int, pump: Pump) -> None:
        """Give the carrier its queue; an older carrier of the same number is ended.

        Raises TunnelError when there is no such number, or when *pump* broke while it was welcomed.
        """
        if pump.ended:
            raise TunnelError("the carrier ended before it was attached")
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
        pump.attach(queue.fileno(), self.offload)
        if self._control_carrier in {None, index}:
            self._use_for_control(index)

    def leave(self, index: int, pump: Pump, error: MeshdevError) -> None:
        """The carrier ended; its flows go to the others, and with the last one the grace begins."""
        if self._carriers.get(index) is not pump:
            return
        del self._carriers[index]
        self._last_received = max(self._last_received, pump.last_received)
        try:
            self.device.queues[index].detach()
        except DeviceError as error_too:  # the device was removed: a fault of this session, not of all
            log.warning("%s of %s: %s", self.device.name, self.holder, error_too.message)
        log.info("carrier %d of %s ended: %s", index, self.holder, error.message)
        if not self._carriers:
            self._begin_grace()
        if self._control_carrier == index:
            self._use_for_control(next(iter(self._carriers), None))

    @property
    def last_received(self) -> float:
        """When anything last came from the laptop, on the loop's clock."""
        return max(self._last_received, *(pump.last_received for pump in self._carriers.values()), 0.0)

    def probe(self) -> None:
        """Ping the laptop on every carrier."""
        for pump in list(self._carriers.values()):
            pump.ask()

    def send_latest(self, key: str, frame: bytes) -> None:
        """Send *frame* when there is room, at no more than :data:`SENT_PER_SECOND`; a newer one of the
        same key replaces one that waits. Without a carrier nothing waits: the next one is sent all anew."""
        if self._control_carrier is None:
            return
        self._outbox.put(key, frame)
        self._flush()
        if len(self._outbox) > self._most:
            self.end(TunnelError(f"{len(self._outbox):,} messages wait for the laptop"))

    def discard(self, key: str) -> None:
        """Do not send what waits under *key*."""
        self._outbox.discard(key)

    def send_records(self, frame: bytes) -> None:
        """Send *frame* in order when there is room; it is dropped where too many wait."""
        size = self._record_bytes + len(frame)
        if self._control_carrier is None or len(self._records) >= MAX_RECORDS_WAITING or size > MAX_RECORDS_BYTES:
            return
        self._records.append(frame)
        self._record_bytes = size
        self._flush()

    def _use_for_control(self, index: int | None) -> None:
        self._control_carrier = index
        self._outbox.clear()
        self._most = math.inf
        self._records.clear()
        self._record_bytes = 0
        if index is not None:
            self._on_control_carrier(self)
        self._most = len(self._outbox) + MAX_WAITING

    def _flush(self) -> None:
        while (
            self._outbox and self._control_carrier is not None and (pump := self._carriers.get(self._control_carrier))
        ):
            if pump.waiting >= _MAX_WAITING or not self._rate.take(self._loop.clock()):
                self._flush_later()
                return
            pump.send(self._outbox.take())
        while (
            self._records and self._control_carrier is not None and (pump := self._carriers.get(self._control_carrier))
        ):
            if pump.waiting >= _MAX_WAITING_BEFORE_RECORDS or not self._records_rate.take(self._loop.clock()):
                self._flush_later()
                return
            frame = self._records.popleft()
            self._record_bytes -= len(frame)
            pump.send(frame)

    def _flush_later(self) -> None:
        def retry() -> None:
            self._retry = None
            self._flush()

        if self._retry is None:
            self._retry = self._loop.call_later(_RETRY_SECONDS, retry)

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
        if self._retry is not None:
            self._retry.cancel()
        if self._grace is not None:
            self._grace.cancel()


def digest(secret: str) -> bytes:
    """What of a secret is kept."""
    return hashlib.sha256(secret.encode()).digest()
