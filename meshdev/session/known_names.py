"""What the session knows of names: the cluster's namespaces and Services, the laptop's own domains."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from meshdev.dns.known import Known, Standing, domains
from meshdev.dns.policy import Zone
from meshdev.kube.client import KubeApi
from meshdev.kube.namespaces import ClusterNames, watch_names
from meshdev.session.cluster import follow, log_interruption

log = logging.getLogger(__name__)

#: Namespaces known only by answers of the cluster's DNS: a program asks for few, whatever makes it ask.
MAX_CONFIRMED: Final = 64


class KnownNames:
    """``known`` is what exists now. *search* gives the laptop's own search list."""

    def __init__(self, api: KubeApi, zone: Zone, others: Iterable[str], search: Callable[[], tuple[str, ...]]) -> None:
        """*others*: namespaces beside the connected one that are known to exist."""
        self._api = api
        self._zone = zone
        self._search = search
        self._certain = frozenset(map(_label, (zone.namespace, *others)))
        self._confirmed: dict[bytes, None] = {}
        self._names = ClusterNames()
        self._reserved = frozenset(
            name
            for name in domains(_hosts(api))
            if not any(name.is_subdomain(suffix) for suffix in domains(zone.domains))
        )
        self._foreign = search()
        self.known = self._computed()
        self.first = asyncio.Event()
        """Set once the cluster has answered."""

    async def follow(self) -> None:
        """Learn what exists until cancelled. Credentials that run out end nothing: the last answer stands."""
        await follow(
            lambda: watch_names(self._api, self._zone.namespace, log.info, log_interruption),
            self._learn,
            self.first,
            required=False,
        )

    async def _learn(self, names: ClusterNames) -> None:
        self._names = names
        self.known = self._computed()

    def look(self) -> None:
        """Follow the laptop's own domains."""
        if self._search() != self._foreign:
            self._foreign = self._search()
            self.known = self._computed()

    def confirm(self, label: bytes) -> None:
        """The cluster's DNS found something in that namespace: so it exists, where nobody may list them."""
        if self.known.namespace(label) is Standing.POSSIBLE and len(self._confirmed) < MAX_CONFIRMED:
            log.info("namespace %s exists, by the cluster's DNS", label.decode("ascii", "replace"))
            self._confirmed[label] = None
            self.known = self._computed()

    def _computed(self) -> Known:
        names = self._names
        listed = frozenset(map(_label, names.namespaces or ()))
        host = socket.gethostname().partition(".")[2]  # resolv.conf(5): the search list where there is none
        return Known(
            namespaces=self._certain | listed | frozenset(self._confirmed),
            complete=names.namespaces is not None,
            services=None if names.services is None else frozenset(map(_label, names.services)),
            foreign=domains((*self._foreign, *filter(None, (host,)))),
            reserved=self._reserved,
        )


def _label(name: str) -> bytes:
    return name.encode("ascii")


def _hosts(api: KubeApi) -> Iterator[str]:
    """The names by which the API server, its proxy or bastion and the environment's proxies are reached."""
    # NO_PROXY stands among them: a list of those that are reached without.
    proxies = [url for scheme, url in getproxies().items() if scheme != "no"]
    bastion = api.endpoint.jump and api.endpoint.jump.host
    for url in (api.server, bastion, api.endpoint.proxy, *proxies):
        try:
            host = urlsplit(url if url and "://" in url else f"//{url or ''}").hostname
        except ValueError:  # a variable that is no URL: no program reaches anything by it
            continue
        if host and not _is_address(host):
            yield host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
