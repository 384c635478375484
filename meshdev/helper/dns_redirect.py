"""DNS integration by redirect: queries to the nameservers of resolv.conf are redirected to the forwarder.

resolv.conf is changed only where the laptop has a search list: programs would ask for ``www.home.example`` before
``www``, which looks the same as a query for the former. There the cluster's entry is put first.
"""

import socket
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.dns import ListenerPair, Watched
from meshdev.helper.firewall import LaptopFirewall
from meshdev.helper.journal import Journal
from meshdev.helper.resolv_conf import OwnResolvConf
from meshdev.helper.sockets import DNS_PORT
from meshdev.host.dns import search_in_force, search_list
from meshdev.netlink.netfilter import forget_flows
from meshdev.wire.resolv_conf import ResolvConf
from meshdev.wire.values import IPAddress

_LOOPBACK: Final[dict[int, IPAddress]] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


class RedirectDns:
    """See :class:`~meshdev.helper.dns.DnsIntegration`."""

    def __init__(self, firewall: LaptopFirewall, journal: Journal) -> None:
        self._firewall = firewall
        self._file = Watched()
        self._own = OwnResolvConf(journal)
        self._search: tuple[str, ...] = ()
        self._searched: tuple[str, ...] | None = None
        self._pairs: dict[int, list[ListenerPair]] = {4: [], 6: []}
        self._redirected: dict[IPAddress, int] = {}

    def listen(self) -> list[ListenerPair]:
        """One listener on loopback, at any port, for each nameserver of the list.

        So the forwarder knows which server a program asked, and asks the same one: a caching resolver of this machine,
        whose own upstream is in the list as well, is not sent its own query.
        """
        try:
            return list(self._listeners().values())
        except OSError as error:
            raise DnsError(f"no listener on loopback: {error.strerror}") from error

    def _listeners(self) -> dict[IPAddress, ListenerPair]:
        """By the server whose queries go there; the servers of another network replace the former ones."""
        found: dict[IPAddress, ListenerPair] = {}
        for version, pairs in self._pairs.items():
            servers = [server for server in self._file.read().asked if server.version == version]
            for at, server in enumerate(servers):
                if at == len(pairs):
                    try:
                        pairs.append(ListenerPair(_LOOPBACK[version], 0))
                    except OSError:
                        if version == 4 or not self._pairs[4]:  # without ::1 IPv4 has to do
                            raise
                        break
                pairs[at].at = replace(pairs[at].at, server=server)
                found[server] = pairs[at]
        return found

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:  # noqa: ARG002 -- see DnsIntegration
        """Redirect; flows that are already tracked would not see the new rules, so they are forgotten."""
        self._search = search
        ports = {server: pair.at.port for server, pair in self._listeners().items()}
        if ports != self._redirected:
            self._firewall.redirect_dns(ports)
            self._redirected = ports
            forget_flows(lambda flow: flow.protocol == 17 and flow.sent_to in {(ip.packed, DNS_PORT) for ip in ports})
        self._put_search_first()

    def refresh(self) -> str | None:
        """Redirect the nameservers of another network."""
        if self._own.replaced():
            self._searched = None
        self.activate(self._search, ())
        return None

    def forget_answers(self) -> None:
        """There is no cache to flush."""

    def withdraw(self) -> None:
        """Remove the redirect, also for queries in flight: their retry goes to the former resolver."""
        self._searched = None
        try:
            if self._redirected:
                self._firewall.remove_redirect()
                self._redirected = {}
                ours = {(pair.at.address.packed, pair.at.port) for pairs in self._pairs.values() for pair in pairs}
                forget_flows(lambda flow: flow.went_to in ours)
        finally:
            self._own.withdraw()

    def former(self) -> ResolvConf:
        """resolv.conf as it was before us."""
        found = self._own.former() if self._own.written else self._file.read()
        return ResolvConf(found.asked, found.search, found.options)

    def _put_search_first(self) -> None:
        """Put the cluster's search domains before the laptop's own, where it has some.

        A file that cannot be written (immutable, a read-only mount) is no reason to go without the cluster's names.
        """
        own = search_in_force(self.former(), socket.gethostname())
        wanted = search_list(self._search, own) if own and self._search else ()
        if wanted == self._searched:
            return
        self._searched = wanted
        try:
            if wanted:
                self._own.write(None, wanted)
            else:
                self._own.withdraw()
        except DnsError as error:
            print(f"helper: names of the laptop's search domain come first: {error}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the listeners."""
        for pairs in self._pairs.values():
            for pair in pairs:
                pair.close()
