"""Where the API server is and how to speak TLS to it, and the seam between requests and the HTTP library below."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from meshdev.errors import ConfigError
from meshdev.kube.credentials import pem
from meshdev.kube.kubeconfig import Kubeconfig

#: Those that both requests and carriers can use.
_PROXY_SCHEMES = ("http", "socks5", "socks5h")


@dataclass(frozen=True)
class Endpoint:
    """One API server. Without an *authority* (PEM) the system's certificates count; *server_name* replaces the host's
    name in the handshake.
    """

    url: str
    proxy: str | None = None
    authority: bytes | None = None
    server_name: str | None = None
    verify: bool = True

    @cached_property
    def parts(self) -> SplitResult:
        """The URL, taken apart; its hostname is never None."""
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """Name or address to connect to."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """Port to connect to."""
        return self.parts.port or (443 if self.secure else 80)

    @property
    def secure(self) -> bool:
        """Whether the server speaks TLS."""
        return self.parts.scheme == "https"

    def __str__(self) -> str:
        """For sentences; without the proxy's password."""
        return f"{self.url} through the proxy {_without_password(self.proxy)}" if self.proxy else self.url


class Response(Protocol):
    """An HTTP answer whose body is still to be read. Close it. Methods raise MeshdevError kinds."""

    @property
    def status(self) -> int: ...
    @property
    def date(self) -> str:
        """The ``Date`` header, empty where there is none."""
        ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    async def line(self) -> bytes:
        """The next line, empty at the end."""
        ...

    def close(self) -> None: ...


class Connections(Protocol):
    """Connections to one endpoint with one client certificate (:class:`meshdev.kube.rest.Rest`)."""

    @property
    def context(self) -> ssl.SSLContext: ...
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
        ...

    async def close(self) -> None: ...


def endpoint(config: Kubeconfig, environment: Mapping[str, str]) -> Endpoint:
    """The endpoint of a kubeconfig's context. Raises ConfigError."""
    cluster = config.cluster
    return Endpoint(
        config.server,
        _proxy(config, environment),
        pem(cluster, "certificate-authority"),
        cluster.get("tls-server-name") or None,
        not cluster.get("insecure-skip-tls-verify", False),
    )


def _proxy(config: Kubeconfig, environment: Mapping[str, str]) -> str | None:
    """The kubeconfig's proxy-url, else the environment's (HTTPS_PROXY, NO_PROXY), as in client-go."""
    parts = urlsplit(config.server)
    proxy = config.cluster.get("proxy-url")
    if not proxy and any(name.lower().endswith("_proxy") for name in environment):
        proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    if not proxy:
        return None
    if urlsplit(str(proxy)).scheme not in _PROXY_SCHEMES:
        raise ConfigError(
            f"the proxy {_without_password(str(proxy))} of context {config.context} cannot be used",
            hint=f"proxies with {', '.join(scheme + '://' for scheme in _PROXY_SCHEMES)} addresses can",
        )
    return str(proxy)


def _without_password(url: str | None) -> str:
    parts = urlsplit(url or "")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
