"""A TLS handshake between two contexts in memory."""

import ssl

from meshdev.identity.tls import load_identity, pem


def server_context(version: ssl.TLSVersion, *trusted: bytes) -> ssl.SSLContext:
    """A server's context of exactly *version* that demands a certificate which *trusted* (DER) vouch for."""
    return _context(ssl.PROTOCOL_TLS_SERVER, version, trusted)


def client_context(version: ssl.TLSVersion, *trusted: bytes) -> ssl.SSLContext:
    """A client's context of exactly *version* that trusts *trusted* (DER)."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, version, trusted)


def _context(protocol: int, version: ssl.TLSVersion, trusted: tuple[bytes, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    if trusted:
        context.load_verify_locations(cadata="".join(map(pem, trusted)))
    return context


class End:
    """One end of a connection: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext, name: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=name is None, server_hostname=name)

    def step(self) -> bool:
        """Go on with the handshake; True when this end is done."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> tuple[End, End]:
    """Both ends after a complete handshake, and data each way. Raises ssl.SSLError of the end that refuses."""
    ends = End(client, name), End(server, None)
    for _ in range(6):
        done = [_flow(ends[0], ends[1]), _flow(ends[1], ends[0])]
        if all(done):
            break
    assert all(done)
    for one, other in (ends, ends[::-1]):
        one.tls.write(b"hello")
        other.incoming.write(one.outgoing.read())
        assert other.tls.read() == b"hello"
    return ends


def _flow(one: End, other: End) -> bool:
    try:
        return one.step()
    finally:
        other.incoming.write(one.outgoing.read())


def identify(context: ssl.SSLContext, private_pem: bytes, *certificates: bytes) -> ssl.SSLContext:
    """*context*, which now shows *certificates*."""
    load_identity(context, private_pem, certificates)
    return context
