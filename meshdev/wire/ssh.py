"""Between the SSH client of ``--ssh`` and who dials through it: records on a socketpair (SOCK_SEQPACKET).

::

    client → starter      {"ssh": "ready", "seconds": 0.4}             logged in at the bastion, or
                          {"ssh": "error", "error": {…}, "exit_code": n}      its last record
    holder → client       {"op": "dial", "host": …, "port": …}         with one end of a stream socketpair (SCM_RIGHTS)
                          {"op": "addresses"}                          the same

The answer is the first line on that stream::

    {"ok": {…}}   or   {"error": {…}, "exit_code": n}

Behind an answer to ``dial`` are the bytes from and to that host, which the bastion resolves and connects to. Whoever
holds the other end of the socketpair may dial; the SSH client ends at its end of file.
"""

from ipaddress import IPv4Address
from typing import Final

from meshdev.wire.codecs import PORT, Many, Number, Parsed, Text
from meshdev.wire.jsonlines import encode
from meshdev.wire.message import Tagged, decode, dump, field, load, message, nested, take
from meshdev.wire.session_api import Failed

#: The longest record or answer.
MAX_RECORD: Final = 16 * 1024


@message()
class BastionReady:
    """Logged in at the bastion, which took *seconds*."""

    seconds: float = field(Number(0, 1e9, digits=3))


@message(strict=True)
class DialRequest:
    """Asks for a connection from the bastion to a host and port."""

    host: str = field(Text(255))
    port: int = field(PORT)


@message(strict=True)
class AddressesRequest:
    """Asks for the addresses that the SSH connection goes to, or would go to now."""


@message()
class BastionAddresses:
    """Of the first hop: its name, and what that resolves to."""

    host: str = field(Text(255), default="")
    addresses: tuple[IPv4Address, ...] = field(Many(Parsed(IPv4Address), 64), default=())


Report = BastionReady | Failed
SshClientRequest = DialRequest | AddressesRequest

_REPORTS: Final[Tagged[Report]] = Tagged("ssh", {"ready": BastionReady, "error": Failed})
_REQUESTS: Final[Tagged[SshClientRequest]] = Tagged("op", {"dial": DialRequest, "addresses": AddressesRequest})


def encode_report(report: Report) -> bytes:
    """A record of the SSH client."""
    return encode(_REPORTS.dump(report), MAX_RECORD)


def parse_report(record: bytes) -> Report:
    """The report in a record."""
    return decode(record, "The SSH client's report", _REPORTS.load)


def encode_dial(request: SshClientRequest) -> bytes:
    """A record for the SSH client."""
    return encode(_REQUESTS.dump(request), MAX_RECORD)


def parse_dial(record: bytes) -> SshClientRequest:
    """The request in a record."""
    return decode(record, "The request to the SSH client", _REQUESTS.load)


def encode_dialled(answer: BastionAddresses | Failed) -> bytes:
    """The first line on a stream."""
    return encode(dump(answer) if isinstance(answer, Failed) else {"ok": dump(answer)}, MAX_RECORD)


def parse_dialled(line: bytes) -> BastionAddresses:
    """The answer in that line. Raises the error that was answered."""
    return decode(line, "The SSH client's answer", _dialled)


def _dialled(found: dict[str, object]) -> BastionAddresses:
    if "error" in found:
        raise load(Failed, found).as_error()
    return take(found, "ok", nested(BastionAddresses))
