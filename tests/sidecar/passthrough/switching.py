"""Owner and policy of a switch, and what clients send."""

from dataclasses import dataclass, field

from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.passthrough.owner import Side
from meshdev.sidecar.passthrough.switch import Switch

SETTINGS = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class World:
    """Owner and policy: what is sent stays in ``sent``; requests with ``claimed:`` are claimed while Envoy is up."""

    envoy_up: bool = True
    http2: bool = True
    whole: bool = False
    draining: bool = False
    watched: bool = False
    sent: dict[Side, bytes] = field(default_factory=lambda: {"client": b"", "app": b"", "envoy": b""})
    log: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.switch = Switch(self, self, whole=self.whole)

    def claims(self, head: RequestHead) -> bool:
        return b"\nclaimed:" in head.lower

    def dial_app(self) -> None:
        self.log.append("dial app")

    def dial_envoy(self) -> bool:
        self.log.append("dial envoy" if self.envoy_up else "no envoy")
        return self.envoy_up

    def send(self, side: Side, data: bytes) -> None:
        assert data
        assert f"finish {side}" not in self.log[self._newest(side) :], "nothing is sent behind the end"
        self.sent[side] += data

    def finish(self, side: Side) -> None:
        self.log.append(f"finish {side}")

    def drop(self, side: Side) -> None:
        self.log.append(f"drop {side}")

    def abort(self) -> None:
        self.log.append("abort")

    def raw(self, reason: str) -> None:
        self.reasons.append(reason)

    def comes(self, side: Side, data: bytes, *, unseen: bool = False) -> None:
        """Bytes of *side*; *unseen*: where that is possible nobody looks at them."""
        to = self.switch.pass_unseen(side, len(data)) if unseen else None
        if to is not None:
            self.send(to, data)
        elif side == "client":
            self.switch.from_client(data)
        elif side == "app":
            self.switch.from_app(data)
        else:
            self.switch.from_envoy(data)

    def taken(self, side: Side) -> bytes:
        """What was sent there since the last time."""
        found, self.sent[side] = self.sent[side], b""
        return found

    def _newest(self, side: Side) -> int:
        dials = [number for number, line in enumerate(self.log) if line == f"dial {side}"]
        return dials[-1] if dials else 0


def get(*, claimed: bool = False, more: bytes = b"") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: b\r\n" + (b"Claimed: 1\r\n" if claimed else b"") + more + b"\r\n"


def post(body: bytes, *, claimed: bool = False) -> bytes:
    line = b"Claimed: 1\r\n" if claimed else b""
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), line, body)
