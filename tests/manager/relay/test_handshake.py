"""Who becomes connected with a laptop, and how everybody else is refused: by a reset, and before our Finished."""

import contextlib
import socket
import ssl
import subprocess
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.identity.authority import Authority
from meshdev.identity.tls import pem
from meshdev.manager.relay import connection, tls
from meshdev.manager.relay.client_hello import ClientHello
from meshdev.wire.relay import RelayEndpoint, RelayRemoved
from tests.manager.relay.world import LAPTOP, RelayWorld, Workload
from tests.sockets import is_reset


def refusal(world: RelayWorld, context: ssl.SSLContext, name: str = "") -> bytes:
    """What a client that is reset has got before: whole records that the relay sent."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    found = b""
    sock = world.client()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name or f"{world.relay}.relay.meshdev")
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
            raise AssertionError("it is complete")
        sock.sendall(outgoing.read())
        try:
            piece = sock.recv(1 << 16)
        except ConnectionResetError:
            return found
        assert piece, "an orderly end"
        found += piece
        incoming.write(piece)


def kinds(records: bytes) -> list[int]:
    """The content types of records: 22 is a handshake, 20 ChangeCipherSpec, 21 an alert (RFC 5246, 6.2.1)."""
    found = []
    while records:
        found.append(records[0])
        records = records[5 + int.from_bytes(records[3:5], "big") :]
    return found


def test_a_permitted_client_is_connected(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sendall(b"hello")
    assert laptop.recv(100) == b"hello"
    laptop.sendall(b"you")
    assert client.recv(100) == b"you"
    assert client.ssl.version() == "TLSv1.2"
    assert client.ssl.getpeercert()["subjectAltName"] == (("DNS", "relay.meshdev"),)  # type: ignore[index] # it was verified


def test_a_key_that_is_not_permitted_gets_no_finished(world: RelayWorld) -> None:
    """By the client's view it never was a connection: neither ChangeCipherSpec nor an alert has come."""
    assert set(kinds(refusal(world, world.issue().context()))) == {22}


def test_a_permitted_key_at_another_relay(world: RelayWorld) -> None:
    other = world.relay + 1 if world.relay < 29999 else 20000
    world.take(RelayEndpoint(other, IPv4Address(LAPTOP), frozenset({"0" * 64})))
    assert set(kinds(refusal(world, world.workload.context(), f"{other}.relay.meshdev"))) == {22}


@pytest.mark.parametrize("which", ["expired", "other authority", "none", "self-signed"])
def test_certificates_that_are_not_verified(world: RelayWorld, tmp_path: Path, which: str) -> None:
    key = world.workload.key
    if which == "expired":
        world.now -= timedelta(hours=2)
        workload = world.issue()
    elif which == "other authority":
        workload = world.issue(authority=Authority.open(tmp_path / "other", "manager-uid", world.now))
    else:
        certificate = key.self_signed(lifetime=timedelta(hours=1), now=world.now)
        workload = Workload(key, certificate, world.authority.certificate)
    world.permit(workload.key.key_id, key.key_id)
    assert set(kinds(refusal(world, workload.context(certificate=which != "none")))) == {22}


def test_nothing_listens(world: RelayWorld) -> None:
    world.laptop_listener.close()
    assert set(kinds(refusal(world, world.workload.context()))) == {22}


@pytest.mark.parametrize("certificate", [True, False], ids=["another key", "no certificate"])
def test_the_laptop_does_not_notice_who_is_refused(world: RelayWorld, certificate: bool) -> None:
    refusal(world, world.issue().context(certificate=certificate))
    world.laptop_listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        world.laptop_listener.accept()


def test_a_silent_laptop_is_given_up_before_envoy_gives_up(world: RelayWorld) -> None:
    assert connection.CONNECT_SECONDS < 0.5
    world.laptop_listener.listen(0)
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):  # the queue is full then, and the kernel drops what comes
            sock.setblocking(False)
            sock.connect_ex(world.laptop_listener.getsockname())
        began = world.loop.clock()
        assert set(kinds(refusal(world, world.workload.context()))) == {22}
        assert 0.3 < world.loop.clock() - began < 2


@pytest.mark.parametrize("name", ["relay.meshdev", "20000.relay.meshdev.", "29999.relay.meshdev", "localhost"])
def test_other_names(world: RelayWorld, name: str) -> None:
    assert refusal(world, world.workload.context(), name) == b""


def test_without_a_certificate_of_its_own_nobody_is_served(world: RelayWorld) -> None:
    world.do(lambda: setattr(world.server, "tls", None))
    assert refusal(world, world.workload.context()) == b""


def test_a_relay_that_is_removed(world: RelayWorld) -> None:
    world.take(RelayRemoved(world.relay))
    assert refusal(world, world.workload.context()) == b""


def test_tls_1_3_is_not_spoken(world: RelayWorld) -> None:
    context = world.workload.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert refusal(world, context) == b""


@pytest.mark.parametrize("ciphers", ["ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"])
def test_no_other_ciphers(world: RelayWorld, ciphers: str) -> None:
    context = world.workload.context()
    context.set_ciphers(ciphers)
    assert refusal(world, context) == b""


@pytest.mark.parametrize("name", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_these_ciphers(world: RelayWorld, name: str) -> None:
    context = world.workload.context()
    context.set_ciphers(name)
    assert world.tls(context).ssl.cipher()[0] == name  # type: ignore[index] # it is connected


def test_a_session_is_not_resumed(world: RelayWorld) -> None:
    """Neither by a ticket nor by its id, also while its connection is open: each shows its certificate."""
    context = world.workload.context()
    first = world.tls(context)
    session = first.ssl.session
    assert session is not None
    assert not session.has_ticket
    second = world.tls(context, session=session)
    assert not second.ssl.session_reused
    third = world.tls(context, session=second.ssl.session)
    assert not third.ssl.session_reused


def test_contexts_are_replaced_before_they_remember_many_sessions(world: RelayWorld) -> None:
    shared = world.server.tls
    assert shared is not None
    streams = [shared.accept(ClientHello(None, b"")) for _ in range(3 * tls.HANDSHAKES)]
    contexts = {id(each.context) for each in streams}
    assert len(contexts) == 3
    offering = [shared.accept(ClientHello(None, b"session")) for _ in range(3)]
    assert len({id(each.context) for each in offering} - contexts) == 3


def test_no_renegotiation(world: RelayWorld, tmp_path: Path) -> None:
    """openssl's own client asks for one with R."""
    (tmp_path / "ca").write_text(pem(world.authority.certificate))
    (tmp_path / "key").write_bytes(world.workload.key.private_pem)
    (tmp_path / "chain").write_text(pem(world.workload.certificate))
    _, port = world.listener.getsockname()
    command = [
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", f"{world.relay}.relay.meshdev"),
        *("-CAfile", str(tmp_path / "ca"), "-key", str(tmp_path / "key"), "-cert", str(tmp_path / "chain"), "-tls1_2"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            laptop = world.accept()
            process.stdin.write(b"one\n")
            process.stdin.flush()
            assert laptop.recv(100) == b"one\n"
            process.stdin.write(b"R\n")
            process.stdin.flush()
            assert is_reset(laptop)
            assert b"RENEGOTIATING" in process.stdout.read()
        finally:
            process.kill()
