"""Address, TLS settings and proxy of the API server, from a kubeconfig."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from meshdev.errors import ConfigError
from meshdev.kube import proxies
from meshdev.kube.certificates import authorities
from meshdev.kube.credentials import pem
from meshdev.kube.kubeconfig import Kubeconfig
from meshdev.text import without_user_info

if TYPE_CHECKING:
    from meshdev.ssh.jump import Jump

#: Those that both requests and carriers can use.
_PROXY_SCHEMES = ("http", "socks5", "socks5h")


@dataclass(frozen=True)
class Endpoint:
    """One API server. Without an *authority* (PEM) the system's certificates count; *server_name* replaces the host's
    name in the handshake. With a *jump* every connection goes through that bastion, and through no proxy.
    """

    url: str
    proxy: str | None = None
    authority: bytes | None = None
    server_name: str | None = None
    verify: bool = True
    jump: "Jump | None" = None

    @cached_property
    def parts(self) -> SplitResult:
        """The URL, parsed; its hostname is never None."""
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
        if self.jump:
            return f"{self.url} through {self.jump.name}"
        return f"{self.url} through the proxy {without_user_info(self.proxy)}" if self.proxy else self.url


def endpoint(config: Kubeconfig, environment: Mapping[str, str], jump: "Jump | None" = None) -> Endpoint:
    """The endpoint of a kubeconfig's context, through *jump*, which takes the place of a proxy. Raises ConfigError."""
    cluster = config.cluster
    verify = not cluster.get("insecure-skip-tls-verify", False)
    authority = pem(cluster, "certificate-authority")
    if authority is not None:
        if not verify:
            raise ConfigError(
                f"context {config.context} has a certificate-authority and insecure-skip-tls-verify",
                hint="remove one of them: kubectl refuses both as well",
            )
        authority = authorities(authority).encode()
        if not authority:
            raise ConfigError(f"the certificate-authority of context {config.context} holds no certificate")
    name = cluster.get("tls-server-name") or None
    proxy = None if jump else _proxy(config, environment)
    return Endpoint(config.server, proxy, authority, name, verify, jump)


def _proxy(config: Kubeconfig, environment: Mapping[str, str]) -> str | None:
    """The kubeconfig's proxy-url, else the environment's (HTTPS_PROXY, NO_PROXY), as in client-go."""
    server = Endpoint(config.server)
    proxy = config.cluster.get("proxy-url") or proxies.from_environment(
        server.parts.scheme, server.host, server.port, environment
    )
    if not proxy:
        return None
    try:
        if urlsplit(proxy).scheme in _PROXY_SCHEMES and urlsplit(proxy).hostname:
            return proxies.with_port(proxy)
    except ValueError:
        pass  # what is no URL cannot be used either
    raise ConfigError(
        f"the proxy {without_user_info(proxy)} of context {config.context} cannot be used",
        hint=f"proxies with {', '.join(scheme + '://' for scheme in _PROXY_SCHEMES)} addresses can",
    )
