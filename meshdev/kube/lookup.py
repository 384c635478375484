"""One request that blocks, for a command that has 0.3 s: the Kubernetes client's import alone takes longer."""

import asyncio
import http.client
import json
import socket
import time
from typing import Any, Final

from meshdev.errors import ClusterError
from meshdev.kube import tls
from meshdev.kube.credentials import Credentials, CredentialSource
from meshdev.kube.endpoint import Endpoint, endpoint
from meshdev.kube.kubeconfig import Kubeconfig, Options

#: Of a list only names are asked for; a server that sends everything all the same must fit, one that floods must not.
_MAX_BYTES: Final = 8 << 20


def get(config: Kubeconfig, options: Options, path: str, accept: str, seconds: float) -> Any:  # noqa: ANN401 -- JSON
    """The answer to ``GET path``, whose steps take *seconds* at most together.

    A credential plugin counts, too. Raises MeshdevError, OSError, ValueError and http.client.HTTPException.
    """
    end = time.monotonic() + seconds
    credentials = asyncio.run(_credentials(config, options, seconds))
    server = endpoint(config, options.environment)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=_left(end))
    connection.sock = _connect(server, credentials, end)
    try:
        connection.request("GET", server.parts.path.rstrip("/") + path, headers=_headers(credentials, options, accept))
        answer = connection.getresponse()
        body = b""
        while piece := _piece(connection, answer, end):
            body += piece
            if len(body) > _MAX_BYTES:
                raise ClusterError(f"the answer to GET {path} is too long")
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ClusterError(f"GET {path} was answered with HTTP status {answer.status}")
    return json.loads(body)


async def _credentials(config: Kubeconfig, options: Options, seconds: float) -> Credentials:
    async with asyncio.timeout(seconds):
        return await CredentialSource(config, options.environment, options.directory).get()


def _connect(server: Endpoint, credentials: Credentials, end: float) -> socket.socket:
    sock: socket.socket
    if server.proxy:
        from python_socks.sync import Proxy  # noqa: PLC0415 -- few servers are behind one

        proxy = Proxy.from_url(server.proxy.replace("socks5h:", "socks5:"), rdns=True)
        sock = proxy.connect(server.host, server.port, timeout=_left(end))
    else:
        sock = socket.create_connection((server.host, server.port), timeout=_left(end))
    sock.settimeout(_left(end))
    if not server.secure:
        return sock
    return tls.context(server, credentials).wrap_socket(sock, server_hostname=server.server_name or server.host)


def _headers(credentials: Credentials, options: Options, accept: str) -> dict[str, str]:
    headers = {"Accept": accept}
    if credentials.authorization:
        headers["Authorization"] = credentials.authorization
    if options.as_user:
        headers["Impersonate-User"] = options.as_user
    return headers


def _piece(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, end: float) -> bytes:
    if connection.sock is not None:  # None: the server closes it after this answer, which has it now
        connection.sock.settimeout(_left(end))
    return answer.read1(1 << 16)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
