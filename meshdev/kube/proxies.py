"""The proxy for the API server, from the environment: the rules of golang.org/x/net/http/httpproxy, as in kubectl.

urllib's differ: it knows neither networks nor ``*.corp``, and sends requests for loopback addresses to the proxy.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

#: Ports that net/http and x/net/proxy dial where the proxy's URL has none.
_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def from_environment(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> str | None:
    """The URL of the proxy for a server; None: connect directly. *scheme* is the server's."""
    name = "HTTPS_PROXY" if scheme == "https" else "HTTP_PROXY"
    proxy = _either(environment, name)
    if not proxy or not _uses_proxy(host.lower().strip(), port, _either(environment, "NO_PROXY")):
        return None
    return with_scheme(proxy)


def with_scheme(proxy: str) -> str:
    """``proxy:3128`` is an HTTP proxy."""
    parts = _split(proxy)
    return proxy if parts is not None and parts[0] and parts[1] else f"http://{proxy}"


def with_port(proxy: str) -> str:
    """With the port that counts where *proxy* names none. Raises ValueError where it cannot be parsed."""
    parts = urlsplit(proxy)
    if parts.port is not None or parts.scheme not in _PORTS:
        return proxy
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{_PORTS[parts.scheme]}").geturl()


def _split(url: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme, parts.netloc


def _either(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _uses_proxy(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return not any(entry and _matches(entry, host, address, port) for entry in entries)


def _matches(entry: str, host: str, address: Address | None, port: int) -> bool:
    """Whether an entry of NO_PROXY means the server."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ip_network(entry, strict=False)
        except ValueError:
            pass  # then it is a name, which no server has
        else:
            return address is not None and address.version == network.version and address in network
    name, wanted = _host_and_port(entry)
    if not name or (wanted and wanted != str(port)):
        return False
    own = _address(name)
    if own is not None:
        return own == address
    if address is not None:
        return False
    if name.startswith("*."):
        name = name[1:]
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _host_and_port(entry: str) -> tuple[str, str]:
    """net.SplitHostPort, where it applies: ``name:80``, ``[::1]:80``; a bare IPv6 address has no port."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":")
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and ":" not in name else (entry, "")


def _address(host: str) -> Address | None:
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
