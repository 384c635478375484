"""The agent's own key and what it signs once, made by a child process: it alone loads ``cryptography``.

That library is 12 MiB of the agent's memory, and 50 ms of its start, for what is done once. The child works while the
agent loads the rest; what it makes goes through a pipe, so nothing of it is ever in a file.
"""

import os
import sys
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from meshdev.errors import ClusterError

#: Of the self-signed certificate: longer than a container runs, the key lives as long as the process.
_LIFETIME: Final = timedelta(days=3650)
#: Bytes before each part: its length.
_LENGTH: Final = 4


@dataclass(frozen=True)
class OwnKey:
    """The private key (PEM), its self-signed certificate, and its request for another one (both DER)."""

    private_pem: bytes = field(repr=False)
    certificate: bytes
    request: bytes


class PendingKey:
    """A key that is being made. To be begun while this process has one thread, as it forks (fork(2))."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        self._child = os.fork()
        if not self._child:
            _be_child(write)
        os.close(write)

    def result(self) -> OwnKey:
        """Wait for it, once. Raises ClusterError where none can be made; the child has said why on stderr."""
        with os.fdopen(self._read, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self._child, 0)
        parts = _split(data)
        if status or len(parts) != 3:
            raise ClusterError(
                f"no private key can be made: the process ended with {os.waitstatus_to_exitcode(status)}"
            )
        return OwnKey(*parts)


def make_key() -> OwnKey:
    """In this process."""
    from meshdev.identity.keys import KeyPair  # noqa: PLC0415 -- not loaded where this is not called

    key = KeyPair.generate()
    return OwnKey(key.private_pem, key.self_signed(lifetime=_LIFETIME, now=datetime.now(UTC)), key.request())


def _be_child(write: int) -> None:
    status = 1
    try:
        made = make_key()
        with os.fdopen(write, "wb") as pipe:
            pipe.write(b"".join(map(_with_length, (made.private_pem, made.certificate, made.request))))
        status = 0
    except BaseException:  # noqa: BLE001 -- nothing of the parent's may run here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _with_length(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH, "big") + part


def _split(data: bytes) -> list[bytes]:
    parts = []
    while data:
        size = int.from_bytes(data[:_LENGTH], "big")
        parts.append(data[_LENGTH : _LENGTH + size])
        data = data[_LENGTH + size :]
    return parts
