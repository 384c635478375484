"""The record of what passes the nodes finds what is sent in the clear; without that no "nothing is readable" counts."""

import secrets
import subprocess
import sys
from contextlib import ExitStack
from typing import Final

import pytest

from tests.e2e import pods
from tests.e2e.capture import captured
from tests.e2e.conftest import CHECKOUT, Laptop

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(90)]

#: Posts a body of 100,000 bytes with the marker over a segment's end, by TCP; a datagram; what comes back is ignored.
_SEND: Final = """
import http.client, socket, sys
service, pod, udp, first, second = sys.argv[1:]
for host, port in ((service, 80), (pod, 8080)):
    connection = http.client.HTTPConnection(host, port, timeout=8)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock.sendall(b"POST / HTTP/1.1\\r\\nHost: b\\r\\nContent-Length: 100032\\r\\n\\r\\n")
    half = len(first) // 2
    connection.sock.sendall(b"x" * 100000 + first[:half].encode())
    connection.sock.sendall(first[half:].encode())
    print(connection.sock.recv(100)[:12].decode())
    connection.close()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(5)
    sock.connect((udp, 9090))
    sock.send(second.encode())
    print(sock.recv(100).decode() == second)
"""


def client() -> str:
    """A pod that asks."""
    return str(pods.pods("default", "app=a")[0]["metadata"]["name"])


def in_clear(*arguments: str) -> str:
    """Run the script in the client."""
    argv = ["kubectl", "exec", client(), "--", "python3", "-c", _SEND, *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", *argv],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_pods_send_in_the_clear_is_found() -> None:
    """By TCP through a Service and to a pod, where segments cut it, and by UDP."""
    tcp, udp, unsent = (secrets.token_hex(16) for _ in range(3))
    address = pods.addresses("default", "app=b")[0]
    with captured() as capture:
        assert in_clear("b", address, "udp-echo", tcp, udp) == "HTTP/1.1 200\nHTTP/1.1 200\nTrue\n"
    found = capture.readable(tcp.encode(), udp.encode(), unsent.encode())
    assert set(found) == {tcp.encode(), udp.encode()}
    assert any(where.endswith(f" → {address}:8080") for where in found[tcp.encode()])
    assert found[udp.encode()] == ["a frame"]


def test_what_a_laptop_tells_the_api_server_is_not(laptop: Laptop) -> None:
    """TLS: the same bytes, encrypted."""
    name = f"marker-{secrets.token_hex(8)}"
    with captured() as capture:
        laptop.ok("kubectl", "create", "configmap", name)
        laptop.ok("kubectl", "delete", "configmap", name)
    assert [flow for flow in capture.streams() if flow.endswith(":6443")]
    assert capture.readable(name.encode()) == {}


@pytest.mark.parametrize(("limit", "seconds", "why"), [(1000, 60.0, "limit"), (1 << 20, 0.01, "time")])
def test_a_record_that_may_miss_something_fails(limit: int, seconds: float, why: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(captured(seconds, limit))
        in_clear("b", pods.addresses("default", "app=b")[0], "udp-echo", "0" * 32, "x")
        with pytest.raises(AssertionError, match=rf"not complete: Ending\(by='{why}'"):
            stack.close()
