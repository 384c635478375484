"""The same certificates with gRPC, whose TLS is BoringSSL: what control's server takes from agents and from Envoys."""

import ssl
from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair, key_id
from meshdev.identity.tls import pem

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
WORKLOAD = "ns/shop/deployment/cart/pod/6b1f3c9a"


class _WhoAmI(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
    """Answers any call with the key id of the certificate that the client showed."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
            (shown,) = context.auth_context()["x509_pem_cert"]
            return key_id(ssl.PEM_cert_to_DER_cert(shown.decode())).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


class Server:
    """A server that trusts the authority."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open(folder / "authority", "domain", NOW)
        pair = KeyPair.generate()
        shown = pem(self.authority.issue_server(pair.request(), "control.meshdev", now=NOW)).encode()
        self._server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[_WhoAmI()])
        trusted = pem(self.authority.certificate).encode()
        credentials = grpc.ssl_server_credentials([(pair.private_pem, shown)], trusted, require_client_auth=True)
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def ask(self, pair: KeyPair, certificate: bytes, *, name: str = "control.meshdev") -> str:
        credentials = grpc.ssl_channel_credentials(
            pem(self.authority.certificate).encode(), pair.private_pem, pem(certificate).encode()
        )
        # A pool of subchannels of its own: no other test's connection is taken.
        options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            answer = channel.unary_unary("/test/WhoAmI")(b"", timeout=10)
        assert isinstance(answer, bytes)
        return answer.decode()

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("grpc"))
    yield server
    server.stop()


@pytest.fixture
def pair() -> KeyPair:
    return KeyPair.generate()


def test_a_self_signed_certificate_is_not_taken(server: Server, pair: KeyPair) -> None:
    with pytest.raises(grpc.RpcError):
        server.ask(pair, pair.self_signed(lifetime=HOUR, now=NOW))


def test_what_another_manager_issued_is_not_taken(server: Server, pair: KeyPair, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "authority", "domain", NOW)
    with pytest.raises(grpc.RpcError):
        server.ask(pair, other.issue_workload(pair.request(), WORKLOAD, now=NOW, lifetime=HOUR))


def test_an_issued_certificate_is_taken_for_the_same_key(server: Server, pair: KeyPair) -> None:
    issued = server.authority.issue_workload(pair.request(), WORKLOAD, now=NOW, lifetime=HOUR)
    assert server.ask(pair, issued) == pair.key_id


def test_an_expired_certificate_is_not_taken(server: Server, pair: KeyPair) -> None:
    before = NOW - timedelta(minutes=2)
    issued = server.authority.issue_workload(pair.request(), WORKLOAD, now=before, lifetime=timedelta(minutes=1))
    with pytest.raises(grpc.RpcError):
        server.ask(pair, issued)


def test_another_servers_name_is_not_taken(server: Server, pair: KeyPair) -> None:
    issued = server.authority.issue_workload(pair.request(), WORKLOAD, now=NOW, lifetime=HOUR)
    with pytest.raises(grpc.RpcError):
        server.ask(pair, issued, name="relay.meshdev")
