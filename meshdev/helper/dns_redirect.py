"""DNS by redirect: questions to the nameservers of resolv.conf are led to the forwarder; no file is touched."""

from ipaddress import IPv4Address, IPv6Address

from meshdev.errors import DnsError
from meshdev.helper.dns import Ear, Watched
from meshdev.helper.firewall import Firewall
from meshdev.helper.sockets import DNS_PORT
from meshdev.host.dns import ResolvConf
from meshdev.netlink.flows import forget_flows
from meshdev.wire.values import IPAddress


class RedirectDns:
    """See :class:`~meshdev.helper.dns.DnsWay`."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._file = Watched()
        self._ears: list[Ear] = []
        self._redirected: tuple[IPAddress, ...] = ()
        self._ports: dict[int, int] = {}

    def listen(self) -> list[Ear]:
        """Loopback, any port; IPv6 too where a nameserver is asked over it."""
        try:
            if not self._ears:
                self._ears.append(Ear(IPv4Address("127.0.0.1"), 0))
            if len(self._ears) == 1 and any(server.version == 6 for server in self._file.read().asked):
                self._ears.append(Ear(IPv6Address("::1"), 0))
        except OSError as error:
            if not self._ears:
                raise DnsError(f"no listener on 127.0.0.1: {error.strerror}") from error
        return self._ears

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:  # noqa: ARG002 -- see DnsWay
        """Redirect; a flow that is already tracked would not see the new rules, so it is forgotten."""
        servers = self._file.read().asked
        ports: dict[int, int] = {ear.at.address.version: ear.at.port for ear in self._ears}
        if (servers, ports) != (self._redirected, self._ports):
            self._firewall.redirect_dns(servers, ports)
            self._redirected, self._ports = servers, ports
            forget_flows(lambda flow: flow.protocol == 17 and flow.sent_to in {(ip.packed, DNS_PORT) for ip in servers})

    def refresh(self) -> str | None:
        """Redirect the nameservers of another network."""
        self.activate((), ())
        return None

    def forget_answers(self) -> None:
        """There is no cache on this way."""

    def withdraw(self) -> None:
        """No redirect, also for questions that are on their way: their retry goes to the former resolver."""
        if self._redirected:
            self._firewall.leave_dns()
            self._redirected = ()
            forget_flows(lambda flow: flow.went_to in {(ear.at.address.packed, ear.at.port) for ear in self._ears})

    def former(self) -> ResolvConf:
        """resolv.conf itself: it is never changed here."""
        found = self._file.read()
        return ResolvConf(found.asked, found.search, found.options)

    def close(self) -> None:
        """Close the listeners."""
        for ear in self._ears:
            ear.close()
