"""The proxy on real sockets: curl's requests, half-closes, errors by cause, limits."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import pytest

from meshdev.errors import DnsError
from meshdev.isolation.network import ThisNetwork
from meshdev.session import destinations, socks
from meshdev.session.destinations import Destinations
from meshdev.session.state import SessionState
from meshdev.wire.values import listen_address

#: Addresses of "the cluster".
CLUSTER: Final = IPv4Network("127.96.0.0/16")
B: Final = IPv4Address("127.96.0.7")
NAMES: Final = {
    "b": (B,),
    "headless": (IPv4Address("127.96.0.1"), B),
    "none": (),
    "external": (IPv4Address("127.0.0.1"),),
}


class Network(ThisNetwork):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.made = 0

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        self.made += 1
        return super().open_socket(family, kind, protocol)


async def resolve(name: str) -> Sequence[IPv4Address] | None:
    if name == "down":
        raise DnsError("the cluster's DNS does not answer")
    return NAMES.get(name)


@asynccontextmanager
async def proxy(network: Network | None = None, *, loopback: bool = True) -> AsyncIterator[str]:
    """One with that network; its URL without a scheme."""
    listener = socket.create_server(("127.0.0.1", 0))
    where = Destinations(resolve, lambda address: address in CLUSTER, network or Network(), loopback=loopback)
    async with socks.serving(listener, where.connect):
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request with a short body; answers with its first line and its headers, and closes."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    if b"\r\nContent-Length: 4\r\n" in head:
        body = await reader.readexactly(4)
    answer = head.partition(b"\r\n\r\n")[0] + b"\n" + body
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
    writer.close()


@asynccontextmanager
async def http(address: str = str(B)) -> AsyncIterator[int]:
    """An HTTP server; its port."""
    server = await asyncio.start_server(_answer, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def curl(*words: str) -> tuple[int, str]:
    """Its exit code, and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "20", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("flags", "host"),
    [
        (("--proxy", "socks5h://{}"), "b"),
        (("--proxy", "socks5h://{}"), "headless"),
        (("--proxy", "socks5://{}"), str(B)),
        (("--proxy", "http://{}", "--proxytunnel"), "b"),
        (("--proxy", "http://{}"), "b"),
        (("--proxy", "http://{}", "-d", "body"), "b"),
    ],
)
async def test_a_request_into_the_cluster(flags: Sequence[str], host: str) -> None:
    network = Network()
    async with proxy(network) as at, http() as port:
        code, output = await curl(*(word.format(at) for word in flags), f"http://{host}:{port}/path?x=1")
    assert code == 0, output
    assert output.splitlines()[0] in {"GET /path?x=1 HTTP/1.1", "POST /path?x=1 HTTP/1.1"}
    assert f"Host: {host}:{port}" in output
    assert "Proxy-Connection" not in output
    assert output.endswith("\nbody" if "-d" in flags else "\n")
    assert network.made == (2 if host == "headless" else 1)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "external"])
async def test_all_others_leave_by_the_machines_own_network(host: str) -> None:
    network = Network()
    async with proxy(network) as at, http("127.0.0.1") as port:
        code, output = await curl("--proxy", f"socks5h://{at}", f"http://{host}:{port}/")
    assert (code, network.made) == (0, 0), output


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "external", "0.0.0.0"])
async def test_clients_of_other_machines_do_not_get_at_this_machines_own_servers(host: str) -> None:
    async with proxy(loopback=False) as at, http("127.0.0.1") as port:
        connected = ("--proxy", f"http://{at}", "--proxytunnel", "-i")
        code, output = await curl(*connected, f"http://{host}:{port}/")
        assert code == 56
        assert "meshdev-answer: not-allowed" in output


@pytest.mark.parametrize(
    ("host", "status", "code", "text"),
    [
        ("b", 502, 5, "b:{port}: Connection refused"),
        ("none", 502, 4, "the cluster has no address of none"),
        ("down", 502, 4, "down:{port}: the cluster's DNS does not answer"),
        ("no-such-name.invalid", 502, 4, "no-such-name.invalid:{port}: "),
    ],
)
async def test_an_error_names_its_cause(host: str, status: int, code: int, text: str) -> None:
    async with proxy() as at:
        with socket.create_server((str(B), 0)) as free:
            port = free.getsockname()[1]
        _, output = await curl("--proxy", f"http://{at}", "-w", "%{http_code}", f"http://{host}:{port}/")
        assert output.startswith(f"meshdev: {text.format(port=port)}")
        assert output.endswith(str(status))
        failed, output = await curl("--proxy", f"socks5h://{at}", f"http://{host}:{port}/")
        assert failed == 97
        assert f"({code})" in output


async def test_who_does_not_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "_CONNECT_SECONDS", 0.1)
    with socket.create_server((str(B), 0), backlog=0) as full:
        port = full.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(8):  # more than its queue holds: what comes then is not answered
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect((str(B), port))
            async with proxy() as at:
                _, output = await curl("--proxy", f"http://{at}", "-w", "%{http_code}", f"http://b:{port}/")
    assert output == f"meshdev: b:{port} does not answer\n504"


async def test_ends_are_handed_on_one_by_one() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d" % len(await reader.read()))
        writer.close()

    server = await asyncio.start_server(count, str(B), 0)
    async with server, proxy() as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.rpartition(":")[2]))
        # All at once, as eager clients do: greeting, request and data.
        port = server.sockets[0].getsockname()[1].to_bytes(2, "big")
        writer.write(b"\x05\x01\x00\x05\x01\x00\x01" + B.packed + port + b"x" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6) + b"100000"
        writer.close()


@pytest.mark.parametrize(("at", "notes"), [("127.0.0.1:1", 0), ("[::1]:1", 0), ("0.0.0.0:1", 1), ("192.0.2.1:1", 1)])
def test_a_proxy_for_other_machines_is_warned_of(at: str, notes: int) -> None:
    shown = socks.show(listen_address(at), SessionState(notes=("before",)))
    assert shown.socks == at
    assert len(shown.notes) == 1 + notes
    assert all("other machines" in note for note in shown.notes[1:])
    assert socks.show(None, SessionState()) == SessionState()


async def test_what_is_no_request_is_answered_and_closed() -> None:
    async with proxy() as at:
        host, _, port = at.rpartition(":")
        for sent, begin in ((b"\x04\x01", b"\x00\x5b"), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 ")):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            assert (await reader.read()).startswith(begin)
            writer.close()


async def test_who_asks_for_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks, "REQUEST_SECONDS", 0.05)
    async with proxy() as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.rpartition(":")[2]))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_one_connection_more_than_there_may_be_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks, "MAX_CONNECTIONS", 1)
    async with proxy() as at, http() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.rpartition(":")[2]))
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        more, its_writer = await asyncio.open_connection("127.0.0.1", int(at.rpartition(":")[2]))
        with pytest.raises(ConnectionResetError):
            await more.read()
        its_writer.close()
        writer.close()  # as soon as the proxy has seen that, there is room
        async with asyncio.timeout(10):
            while (await curl("--proxy", f"http://{at}", f"http://b:{port}/"))[0]:
                pass


async def test_the_end_cuts_what_is_open() -> None:
    async with asyncio.timeout(10):
        async with proxy() as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(at.rpartition(":")[2]))
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
