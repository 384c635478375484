"""What nobody claimed passes a sidecar byte for byte, on declared ports and others: app and client are the test's own.

Both are sockets in the network namespaces of real pods, so that each side is known to the byte.
"""

import socket
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster.manifests import App, Port
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop
from tests.e2e.intercepting import intercepted, local
from tests.e2e.networks import inside, of_pod
from tests.e2e.workloads import of
from tests.sidecar.worker.test_verbatim import CASES, ORIGINAL, PLAIN
from tests.sidecar.worker.world import SECONDS
from tests.sockets import everything, exactly

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "verbatim"
#: Of the pod, where the test listens: in its spec as http, and not there.
DECLARED: Final = 7777
UNDECLARED: Final = 7778
RAW: Final = App("raw", ("--name=raw", "--port=8080"), (Port("http", DECLARED, 80),))
#: Connections of HTTP/2 are Envoy's where a match is claimed, and this one has no requests.
OF_ENVOY: Final = "request: HTTP/2"


class Pair:
    """A listener in one pod, and clients in another."""

    def __init__(self, app: pods.Pod, client: pods.Pod, port: int) -> None:
        self._client = client
        self._to = (app["status"]["podIP"], port)
        with inside(of_pod(app)):
            self.listener = socket.create_server(("0.0.0.0", port))

    def talk(self, pieces: list[bytes], response: bytes, *, kept: bool) -> tuple[bytes, bytes]:
        """What the app gets of *pieces*, and the client of *response*."""
        with inside(of_pod(self._client)):
            client = socket.socket()
        with client:
            client.settimeout(SECONDS)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.connect(self._to)
            self.listener.settimeout(SECONDS)
            app = self.listener.accept()[0]
            with app:
                app.settimeout(SECONDS)
                if kept:
                    client.sendall(PLAIN)
                    assert exactly(app, len(PLAIN)) == PLAIN
                    app.sendall(ORIGINAL)
                    assert exactly(client, len(ORIGINAL)) == ORIGINAL
                for piece in pieces:
                    client.sendall(piece)
                got = exactly(app, sum(map(len, pieces)))
                if response:
                    app.sendall(response)
            return got, everything(client)


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    laptop = Laptop(1)
    laptop.clean()
    with workloads.namespace(NAMESPACE, *of(RAW, NAMESPACE)), laptop.connected(), local(laptop):
        yield laptop
    laptop.clean()


@pytest.mark.parametrize("port", [DECLARED, UNDECLARED])
def test_nothing_is_changed(there: Laptop, port: int) -> None:
    (app,), (client,) = pods.pods(NAMESPACE, "app=raw"), pods.pods(NAMESPACE, "!app")
    pair = Pair(app, client, port)
    changed: dict[str, object] = {}
    with pair.listener, intercepted(there, "mesh", "deployment/raw", NAMESPACE, "-H", "a=1", "--port", f"8080:{port}"):
        for name in CASES.keys() - {OF_ENVOY}:
            request, response = CASES[name]
            for kept in (False, True):
                try:
                    found: object = pair.talk([request], response, kept=kept)
                except OSError as error:
                    found = error
                if found != (request, response):
                    changed[f"{name}{', kept' if kept else ''}"] = found
    assert changed == {}
