"""The one module that imports ``kubernetes``: its asyncio client as a sender of plain dicts.

``kubernetes.aio.client.ApiClient.call_api`` is used without the generated API classes: since 37.0 they are imported on
demand, and 840 models would cost a second and 60 MB. Slow to import all the same (0.4 s): import it in a thread.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from kubernetes.aio.client import ApiClient, Configuration
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy

from meshdev.config import VERSION
from meshdev.errors import ConfigError
from meshdev.kube.credentials import Credentials
from meshdev.kube.endpoint import Endpoint
from meshdev.kube.errors import from_connection
from meshdev.kube.tls import load_client_certificate

Dial = Callable[[str, int], Awaitable[socket.socket]]
#: ssl.SSLError and TimeoutError are OSErrors; a SOCKS proxy's "no" is none.
_TRANSPORT_ERRORS: Final = (aiohttp.ClientError, OSError, ProxyError)


class Response:
    """An HTTP answer whose body has not been read yet. Close it."""

    def __init__(self, response: aiohttp.ClientResponse, endpoint: Endpoint, closed: Callable[[], None]) -> None:
        self._response = response
        self._endpoint = endpoint
        self._closed: Callable[[], None] | None = closed
        self.status = response.status
        self.date = response.headers.get("Date", "")

    def close(self) -> None:
        """A second call does nothing."""
        self._response.close()
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

    async def read(self) -> bytes:
        """The whole body."""
        try:
            return await self._response.read()
        except _TRANSPORT_ERRORS as error:
            raise from_connection(error, self._endpoint) from error

    async def line(self) -> bytes:
        """The next line of a watch, empty at its end."""
        try:
            return await self._response.content.readline()
        except _TRANSPORT_ERRORS as error:
            raise from_connection(error, self._endpoint) from error

    async def piece(self) -> bytes:
        """What has arrived, as soon as there is something; empty at the end."""
        try:
            return await self._response.content.readany()
        except _TRANSPORT_ERRORS as error:
            raise from_connection(error, self._endpoint) from error


class Connections:
    """Connections to one API server with one client certificate Made in a loop."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        configuration = Configuration(
            host=endpoint.url,
            ca_cert_data=endpoint.authority.decode("ascii") if endpoint.authority else None,
            verify_ssl=endpoint.verify,
            tls_server_name=endpoint.server_name,
        )
        # Python ≥ 3.13 refuses CAs without an Authority Key Identifier, which many clusters have and kubectl takes.
        configuration.disable_strict_ssl_verification = True
        # GETs that the server turns away with Retry-After (priority and fairness) are repeated.
        configuration.client_go_retries = True
        # Proxies of the environment are chosen in endpoint.py, for carriers too; and no .netrc, please.
        configuration.client_session_kwargs = {"trust_env": False}
        socks = endpoint.proxy if urlsplit(endpoint.proxy or "").scheme.startswith("socks") else None
        configuration.proxy = None if socks else endpoint.proxy
        try:
            self._client = ApiClient(configuration)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"certificate-authority in the kubeconfig holds no certificate: {error}") from error
        self._endpoint = endpoint
        self._busy = 0
        self.context: ssl.SSLContext = self._client.rest_client.ssl_context
        self.context.set_alpn_protocols(["http/1.1"])
        load_client_certificate(self.context, credentials)
        self._connector = (
            _DiallingConnector(_dialler(endpoint, socks), self.context)
            if socks or endpoint.jump
            else aiohttp.TCPConnector(
                limit=configuration.connection_pool_maxsize, ssl=self.context, socket_factory=_kept_alive
            )
        )
        configuration.client_session_kwargs["connector"] = self._connector

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None,
        seconds: float,
        *,
        watch: bool,
    ) -> Response:
        """One request; an HTTP error is an answer here. *seconds* limit the whole, of a watch each silence."""
        limits = (
            aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
            if watch
            else aiohttp.ClientTimeout(total=seconds)
        )
        sent = {"User-Agent": f"meshdev/{VERSION}", **headers}
        self._busy += 1
        try:
            async with asyncio.timeout(seconds):  # repetitions included
                response = await self._client.call_api(method, url, sent, body=body, _request_timeout=limits)
        except BaseException as error:
            self._done()
            if isinstance(error, _TRANSPORT_ERRORS):
                raise from_connection(error, self._endpoint) from error
            raise
        return Response(response.response, self._endpoint, self._done)

    @property
    def idle(self) -> bool:
        """No answer is being waited for or read."""
        return not self._busy

    def _done(self) -> None:
        self._busy -= 1

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
        await self._connector.close()  # the session does not own it


def _kept_alive(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices within 25 s that its peer is gone: after a sleep, a watch would be silent for minutes."""
    family, kind, protocol, _, _ = info
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def _dialler(endpoint: Endpoint, socks: str | None) -> Dial:
    if endpoint.jump is not None:
        return endpoint.jump.connect
    proxy = Proxy.from_url((socks or "").replace("socks5h:", "socks5:"), rdns=True)
    connect: Dial = proxy.connect
    return connect


class _DiallingConnector(aiohttp.TCPConnector):
    """Connects through a bastion or a SOCKS proxy, which also resolves names.

    aiohttp has no public hook for it; ``aiohttp-socks`` overrides the same method, but loses tls-server-name.
    """

    def __init__(self, dial: Dial, context: ssl.SSLContext) -> None:
        super().__init__(resolver=_NoResolver(), ssl=context)
        self._dial = dial

    async def _wrap_create_connection(
        self,
        *args: Any,  # noqa: ANN401 -- aiohttp's signature
        addr_infos: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- the same
        **kwargs: Any,  # noqa: ANN401 -- the same
    ) -> Any:  # noqa: ANN401 -- the same
        options = {name: kwargs[name] for name in ("ssl", "server_hostname")}
        async with asyncio.timeout(timeout.sock_connect or timeout.total):
            sock = await self._dial(*addr_infos[0][4][:2])
        return await asyncio.get_running_loop().create_connection(*args, **options, sock=sock)


class _NoResolver(AbstractResolver):
    """Leaves names to the proxy."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host=host, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass
