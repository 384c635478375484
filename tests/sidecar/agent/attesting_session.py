"""A session's end of attestation over a plain TCP connection, as the kubelet makes it inside the pod."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext

from meshdev.kube.attestation import AgentAddress, Attested, Forward, ManagerCertificates, attest
from meshdev.kube.portforward import PortForward
from meshdev.pump.transport import SocketTransport
from meshdev.wire.framing import PlainFraming

Place = Callable[[], AbstractContextManager[object]]


def connect(port: int, place: Place = nullcontext) -> socket.socket:
    """A connection to *port* of the loopback, in the network of *place*."""
    with place():
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as every connection of a program in Go
    return sock


def forwarding(place: Place = nullcontext) -> Forward:
    """Port-forwards that end in the network of *place*."""

    async def forward(_namespace: str, _pod: str, port: int) -> PortForward:
        return PortForward(SocketTransport(connect(port, place)), PlainFraming(), "spdy")

    return forward


async def attested(
    port: int,
    uid: str,
    manager: bytes,
    fingerprint: str | None = None,
    place: Place = nullcontext,
    *,
    issue: Callable[[bytes], bytes] = lambda _: b"nothing",
) -> Attested:
    """What becomes of an attestation at *port*. Raises as :func:`meshdev.kube.attestation.attest` does.

    *issue* gives the manager's certificate for a request.
    """

    async def introduce(request: bytes, _proof: str) -> ManagerCertificates:
        return ManagerCertificates(manager, issue(request))

    return await attest(forwarding(place), AgentAddress("default", "b-1", uid, port, fingerprint), introduce)


@contextlib.asynccontextmanager
async def tls(
    port: int, place: Place = nullcontext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """For whoever says something else than a session does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sock = connect(port, place)
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname="")
    try:
        yield reader, writer
    finally:
        writer.close()
