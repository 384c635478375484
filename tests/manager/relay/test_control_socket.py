"""Control's end of the socket: what it is asked for, what it sends, and what is done with garbage."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.identity.keys import key_id
from meshdev.manager.relay import server
from meshdev.manager.relay.control_socket import RelayControlSocket
from meshdev.sidecar.envoy.tls import RELAY_NAME
from meshdev.wire.relay import (
    MAX_DATAGRAM,
    RelayEndpoint,
    RelayIdentity,
    RelaySigningRequest,
    RelaysSynced,
    decode_from_relay,
    encode,
)
from tests.manager.relay.world import LAPTOP, RelayWorld
from tests.sockets import exactly, is_reset


@pytest.fixture
def path(world: RelayWorld, tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "relay.sock"
    made: list[RelayControlSocket] = []
    world.do(lambda: made.append(RelayControlSocket(world.loop, world.server, found)))
    yield found
    world.do(made[0].close)


def control(world: RelayWorld, path: Path) -> tuple[socket.socket, RelaySigningRequest]:
    """Connected, with what it is asked for."""
    sock = world.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    sock.settimeout(10)
    sock.connect(str(path))
    return sock, decode_from_relay(sock.recv(MAX_DATAGRAM))


def test_it_is_asked_for_a_certificate_of_one_key(world: RelayWorld, path: Path) -> None:
    issued = []
    for _ in range(2):
        sock, request = control(world, path)
        issued.append(world.authority.issue_server(request.csr, RELAY_NAME, now=world.now))
        sock.send(encode(RelayIdentity(issued[-1], world.authority.certificate)))
    assert key_id(issued[0]) == key_id(issued[1])
    assert world.both()


def test_the_last_state_holds_while_it_is_away(
    world: RelayWorld, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)
    caplog.set_level("INFO")
    sock, _ = control(world, path)
    sock.send(encode(RelaysSynced()))  # nothing is there
    world.until(lambda: "control has sent everything: 0 relays" in caplog.text)
    with pytest.raises(ConnectionResetError):
        world.tls()
    sock.send(encode(RelayEndpoint(world.relay, IPv4Address(LAPTOP), frozenset({world.workload.key.key_id}))))
    world.until(lambda: len(world.server.permissions) == 1)
    client, laptop = world.both()
    sock.close()
    world.until(lambda: "control is away, its last state holds: it has closed" in caplog.text)
    client.sendall(b"fine")
    assert exactly(laptop, 4) == b"fine"
    new, _ = control(world, path)
    client.sendall(b"fine")
    assert exactly(laptop, 4) == b"fine"
    new.send(encode(RelaysSynced()))
    assert is_reset(laptop)


@pytest.mark.parametrize("datagram", [b"x", b"{}", b'{"removed":1}', b"x" * (MAX_DATAGRAM + 1)])
def test_garbage_ends_its_connection_and_nothing_else(world: RelayWorld, path: Path, datagram: bytes) -> None:
    sock, _ = control(world, path)
    sock.send(datagram)
    assert sock.recv(100) == b""
    assert world.both()
    assert control(world, path)


def test_an_identity_that_cannot_be_used_changes_nothing(
    world: RelayWorld, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sock, _ = control(world, path)
    sock.send(encode(RelayIdentity(b"no certificate", b"nor this")))
    sock.send(encode(RelayIdentity(world.workload.certificate, world.authority.certificate)))  # of another key
    world.until(lambda: caplog.text.count("control's certificate cannot be used") == 2)
    assert world.both()


def test_a_new_one_takes_the_place_of_the_former(world: RelayWorld, path: Path) -> None:
    former, _ = control(world, path)
    control(world, path)
    assert former.recv(100) == b""
