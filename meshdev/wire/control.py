"""Control messages of the tunnel: frozen values and their JSON.

The first frame of a carrier is the client's HELLO; the manager answers WELCOME or CLOSE. A carrier whose HELLO says
``observer`` gets SESSIONS and is closed. Unknown keys are skipped, so that a message can grow without a new version;
missing keys and wrong types raise ProtocolError.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any, Final

from meshdev.errors import ProtocolError
from meshdev.wire import frames

#: Most carriers of one session, and so queues of one TUN device.
MAX_CARRIERS: Final = 8
_MAX_TEXT: Final = 1024
_MAX_ITEMS: Final = 64
_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_OFFLOAD_BITS: Final = 0xFF


@dataclass(frozen=True)
class Hello:
    """The client's first words on each carrier.

    ``session`` names the session (128 random bits, hex), ``secret`` proves that a later carrier belongs to it.
    ``offload`` is the TUN_F_* mask that the client's kernel takes, ``pools`` the ranges it can use, best first.
    """

    oldest: int
    newest: int
    session: str
    secret: str
    holder: str
    offload: int
    pools: tuple[IPv4Network, ...]
    wanted: IPv4Address | None = None
    carrier: int = 0
    carriers: int = 1
    observer: bool = False


@dataclass(frozen=True)
class Welcome:
    """The manager's answer: the session is up.

    ``mtu`` in bytes is that of the manager's own interface; ``offload`` the mask both kernels take.
    """

    version: int
    address: IPv4Address
    mtu: int
    offload: int
    nameservers: tuple[IPv4Address, ...]
    search: tuple[str, ...]
    pod: str
    namespace: str
    pod_address: IPv4Address


@dataclass(frozen=True)
class Close:
    """Goodbye: ``code`` for programs, ``reason`` for people. ``sessions`` counts who else is on the manager."""

    code: str
    reason: str
    sessions: int = 0


@dataclass(frozen=True)
class SessionInfo:
    """One session as others may see it."""

    holder: str
    address: IPv4Address
    age_s: int


@dataclass(frozen=True)
class Sessions:
    """Everybody on the manager."""

    sessions: tuple[SessionInfo, ...]


Message = Hello | Welcome | Close | Sessions


def encode(message: Message) -> bytes:
    """The whole frame of *message*."""
    match message:
        case Hello():
            return _frame(frames.HELLO, message)
        case Welcome():
            return _frame(frames.WELCOME, message)
        case Close():
            return _frame(frames.CLOSE, message)
        case Sessions():
            return _frame(frames.SESSIONS, message)


def _frame(kind: int, message: Message) -> bytes:
    return frames.frame(kind, json.dumps(_plain(message), separators=(",", ":")).encode())


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case tuple():
            return [_plain(item) for item in value]
        case Hello() | Welcome() | Close() | Sessions() | SessionInfo():
            return {key: _plain(item) for key, item in vars(value).items()}
        case _:
            return str(value)


def decode(kind: int, body: bytes) -> Message | None:
    """The message of a frame; None for an unknown kind that may be skipped. Raises ProtocolError."""
    reader = _READERS.get(kind)
    if reader is None:
        if kind & frames.OPTIONAL:
            return None
        raise ProtocolError(f"a tunnel frame of unknown kind {kind}")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a tunnel message of kind {kind} is not JSON") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"a tunnel message of kind {kind} is not an object")
    return reader(_Fields(data))


class _Fields:
    """Typed access to a JSON object; everything it refuses is a ProtocolError that names the key."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._data.get(key)
        if type(value) is not int or not low <= value <= high:
            raise ProtocolError(f"{key!r} must be a number from {low} to {high}")
        return value

    def text(self, key: str) -> str:
        return self._text(key, self._data.get(key))

    def identity(self, key: str) -> str:
        value = self.text(key)
        if not _HEX_ID.fullmatch(value):
            raise ProtocolError(f"{key!r} must be 32 hexadecimal digits")
        return value

    def flag(self, key: str) -> bool:
        value = self._data.get(key)
        if not isinstance(value, bool):
            raise ProtocolError(f"{key!r} must be true or false")
        return value

    def items(self, key: str) -> list[Any]:
        value = self._data.get(key)
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise ProtocolError(f"{key!r} must be a list of at most {_MAX_ITEMS}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._text(key, item) for item in self.items(key))

    def address(self, key: str) -> IPv4Address:
        try:
            return IPv4Address(self.text(key))
        except AddressValueError as error:
            raise ProtocolError(f"{key!r} must be an IPv4 address") from error

    def optional_address(self, key: str) -> IPv4Address | None:
        return None if self._data.get(key) is None else self.address(key)

    def addresses(self, key: str) -> tuple[IPv4Address, ...]:
        return tuple(_Fields({key: item}).address(key) for item in self.items(key))

    def networks(self, key: str) -> tuple[IPv4Network, ...]:
        try:
            return tuple(IPv4Network(text) for text in self.texts(key))
        except (AddressValueError, NetmaskValueError, ValueError) as error:
            raise ProtocolError(f"{key!r} must be IPv4 ranges") from error

    @staticmethod
    def _text(key: str, value: object) -> str:
        if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
            raise ProtocolError(f"{key!r} must be a text of at most {_MAX_TEXT} printable characters")
        return value


def _hello(fields: _Fields) -> Hello:
    carriers = fields.integer("carriers", 1, MAX_CARRIERS)
    return Hello(
        oldest=fields.integer("oldest", 0, 1 << 16),
        newest=fields.integer("newest", 0, 1 << 16),
        session=fields.identity("session"),
        secret=fields.identity("secret"),
        holder=fields.text("holder"),
        offload=fields.integer("offload", 0, _OFFLOAD_BITS),
        pools=fields.networks("pools"),
        wanted=fields.optional_address("wanted"),
        carrier=fields.integer("carrier", 0, carriers - 1),
        carriers=carriers,
        observer=fields.flag("observer"),
    )


def _welcome(fields: _Fields) -> Welcome:
    return Welcome(
        version=fields.integer("version", 0, 1 << 16),
        address=fields.address("address"),
        # RFC 791: every host forwards 68 bytes; the upper end is the largest MTU a TUN device takes.
        mtu=fields.integer("mtu", 68, 65535),
        offload=fields.integer("offload", 0, _OFFLOAD_BITS),
        nameservers=fields.addresses("nameservers"),
        search=fields.texts("search"),
        pod=fields.text("pod"),
        namespace=fields.text("namespace"),
        pod_address=fields.address("pod_address"),
    )


def _close(fields: _Fields) -> Close:
    return Close(
        code=fields.text("code"), reason=fields.text("reason"), sessions=fields.integer("sessions", 0, 1 << 20)
    )


def _sessions(fields: _Fields) -> Sessions:
    return Sessions(tuple(_session_info(item) for item in fields.items("sessions")))


def _session_info(item: object) -> SessionInfo:
    if not isinstance(item, dict):
        raise ProtocolError("'sessions' must be objects")
    fields = _Fields(item)
    return SessionInfo(
        holder=fields.text("holder"), address=fields.address("address"), age_s=fields.integer("age_s", 0, 1 << 40)
    )


_READERS: Final[dict[int, Callable[[_Fields], Message]]] = {
    frames.HELLO: _hello,
    frames.WELCOME: _welcome,
    frames.CLOSE: _close,
    frames.SESSIONS: _sessions,
}
