"""DNS by redirect: questions to the nameservers of resolv.conf are led to the forwarder.

resolv.conf is not touched, but where the laptop has a search list: programs would ask for ``www.home.example`` before
they ask for ``www``, and nobody could tell that from a question for the former. There the cluster's entry goes first.
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
from meshdev.host.dns import ResolvConf, search_in_force, search_list
from meshdev.netlink.netfilter import forget_flows
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
        self._ears: dict[int, list[ListenerPair]] = {4: [], 6: []}
        self._redirected: dict[IPAddress, int] = {}

    def listen(self) -> list[ListenerPair]:
        """Loopback, any port, one listener for each nameserver of the list.

        So the forwarder knows whom a program asked, and asks the same one: a caching resolver of this machine, whose
        own upstream stands in the list as well, is not asked what it is asking.
        """
        try:
            return list(self._listeners().values())
        except OSError as error:
            raise DnsError(f"no listener on loopback: {error.strerror}") from error

    def _listeners(self) -> dict[IPAddress, ListenerPair]:
        """By the server whose questions go there; those of another network take the place of the former ones."""
        found: dict[IPAddress, ListenerPair] = {}
        for version, ears in self._ears.items():
            servers = [server for server in self._file.read().asked if server.version == version]
            for at, server in enumerate(servers):
                if at == len(ears):
                    try:
                        ears.append(ListenerPair(_LOOPBACK[version], 0))
                    except OSError:
                        if version == 4 or not self._ears[4]:  # a machine without ::1 is asked over IPv4
                            raise
                        break
                ears[at].at = replace(ears[at].at, server=server)
                found[server] = ears[at]
        return found

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:  # noqa: ARG002 -- see DnsIntegration
        """Redirect; a flow that is already tracked would not see the new rules, so it is forgotten."""
        self._search = search
        ports = {server: ear.at.port for server, ear in self._listeners().items()}
        if ports != self._redirected:
            self._firewall.redirect_dns(ports)
            self._redirected = ports
            forget_flows(lambda flow: flow.protocol == 17 and flow.sent_to in {(ip.packed, DNS_PORT) for ip in ports})
        self._search_here_first()

    def refresh(self) -> str | None:
        """Redirect the nameservers of another network."""
        if self._own.replaced():
            self._searched = None
        self.activate(self._search, ())
        return None

    def forget_answers(self) -> None:
        """There is no cache on this way."""

    def withdraw(self) -> None:
        """No redirect, also for questions that are on their way: their retry goes to the former resolver."""
        self._searched = None
        try:
            if self._redirected:
                self._firewall.leave_dns()
                self._redirected = {}
                ours = {(ear.at.address.packed, ear.at.port) for ears in self._ears.values() for ear in ears}
                forget_flows(lambda flow: flow.went_to in ours)
        finally:
            self._own.withdraw()

    def former(self) -> ResolvConf:
        """resolv.conf as it was before us."""
        found = self._own.former() if self._own.written else self._file.read()
        return ResolvConf(found.asked, found.search, found.options)

    def _search_here_first(self) -> None:
        """The cluster's names before those of the laptop's own search list, where it has one.

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
        for ears in self._ears.values():
            for ear in ears:
                ear.close()
