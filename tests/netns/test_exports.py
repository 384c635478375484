"""What the manager's packet filter lets control send: nothing, unless the Deployment says where spans go."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from meshdev.config import CONTROL_UID, RELAY_UID, TUNNEL_PORT
from tests.manager.standin import hello
from tests.netns.bare_session import Session
from tests.netns.cluster import METADATA, POD, SECOND_POD, Cluster
from tests.netns.relayed import dial

PORT = 4318


@pytest.fixture(scope="module")
def sending() -> Iterator[Cluster]:
    """A manager whose containers have the variable."""
    cluster = Cluster()
    try:
        cluster.start_manager(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{POD}:{PORT}")
        yield cluster
    finally:
        cluster.close()


def listening(cluster: Cluster, address: IPv4Address, port: int) -> socket.socket:
    with cluster.pod.inside():
        return socket.create_server((str(address), port))


def test_control_reaches_receivers_and_nothing_else(sending: Cluster) -> None:
    with listening(sending, POD, PORT), listening(sending, SECOND_POD, PORT), listening(sending, POD, 8080):
        dial(sending, CONTROL_UID, POD, PORT).close()
        dial(sending, CONTROL_UID, SECOND_POD, PORT).close()  # names of receivers may lead to others tomorrow
        dial(sending, 0, POD, 8080).close()
        for user, address, port in (
            (CONTROL_UID, POD, 8080),
            (CONTROL_UID, IPv4Address("127.0.0.1"), TUNNEL_PORT),
            (RELAY_UID, POD, PORT),
        ):
            with pytest.raises(ConnectionRefusedError):
                dial(sending, user, address, port)


def test_neither_laptops_nor_the_nodes_metadata_are_receivers(sending: Cluster) -> None:
    session = Session(sending, hello("ann"))
    try:
        with listening(sending, METADATA, PORT):
            dial(sending, 0, METADATA, PORT).close()
            for address in (METADATA, session.address):
                with pytest.raises(ConnectionRefusedError):
                    dial(sending, CONTROL_UID, address, PORT)
    finally:
        session.close()


def test_without_the_variable_it_reaches_nothing(cluster: Cluster) -> None:
    with listening(cluster, POD, PORT), pytest.raises(ConnectionRefusedError):
        dial(cluster, CONTROL_UID, POD, PORT)
